"""Labels of every token: losses by hand, and what doesn't fit."""

import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.heads.token_labels import TokenLabelHead
from mmunify.types import Features, OutputBatch
from tests.heads.test_patch_labels import make_batch

TARGET = torch.tensor([[[2.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], [[1.0, 1.0], [2.0, -1.0], [-1.0, -1.0]]])
TOKENS = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = TokenLabelHead(target_dim=8, labels={"key": 3, "heard": 2})
    head.node = "patches"
    return head


def run(head, tokens=TOKENS, target=TARGET, condition=()):
    number = 0 if target is None else len(target)
    outputs = OutputBatch(slots=None, document=torch.arange(number), target=target, condition=condition)
    return head(None, make_batch(outputs), {"audio": Features(tokens=tokens)}, None)


def test_losses_by_hand(head):
    out, said = run(head), head.readout(TOKENS)
    keys, heard = TARGET[..., 0] >= 0, TARGET[..., 1] >= 0
    key = F.cross_entropy(said[keys][:, :3], torch.tensor([2, 0, 1, 2]), reduction="sum")
    torch.testing.assert_close(out.losses["key"], key)
    second = F.cross_entropy(said[heard][:, 3:], torch.tensor([0, 1, 1]), reduction="sum")
    torch.testing.assert_close(out.losses["heard"], second)
    assert {name: int(count) for name, count in out.counts.items()} == {"key": 4, "heard": 3}
    torch.testing.assert_close(out.predictions["key"], said[..., :3].argmax(-1))
    assert out.predictions["heard"].shape == (2, 3)


def test_outputs_name_the_medium_that_they_describe(head):
    crossed = run(head, condition=(("audio", 1), ("audio", 0)))
    straight = run(head, tokens=TOKENS[[1, 0]])
    for name, loss in straight.losses.items():
        torch.testing.assert_close(crossed.losses[name], loss)


def test_lists_of_targets_are_the_same_targets(head):
    torch.testing.assert_close(run(head, target=list(TARGET)).losses, run(head).losses)


def test_a_prompt_has_predictions_and_no_loss(head):
    out = run(head, target=None)
    assert out.predictions["key"].shape == (2, 3)
    sum(out.losses.values()).backward()
    assert head.readout.weight.grad.abs().sum() == 0 and not any(out.counts.values())
    assert head.spec is None and not head.needs_backbone


def test_what_does_not_fit(head):
    with pytest.raises(DataError, match=r"key 3 is outside 0\.\.2; raise labels\.key"):
        run(head, target=TARGET + torch.tensor([1.0, 0.0]))
    with pytest.raises(DataError, match=r"targets of shape \(2, 3, 2\); expected \(2, 4, 2\)"):
        run(head, tokens=torch.zeros(2, 4, 8))
    with pytest.raises(DataError, match=r"reads encoder node 'audio'; the batch has \['image'\]"):
        head(None, make_batch(None), {"image": Features(tokens=TOKENS)}, None)
    with pytest.raises(UserError, match="labels of two or more values"):
        TokenLabelHead(target_dim=8, labels={"key": 1})
