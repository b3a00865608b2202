import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError
from mmunify.heads.patch_labels import PatchLabelHead
from mmunify.types import Attention, Batch, Features, OutputBatch

NOTHING = torch.zeros(0, 0, dtype=torch.long)


def make_batch(outputs):
    attention = Attention(document=NOTHING, segment=NOTHING, full=NOTHING.bool(), valid=NOTHING.bool())
    return Batch(
        input_ids=NOTHING,
        labels=NOTHING,
        attention=attention,
        position_ids=NOTHING,
        task=torch.zeros(0, dtype=torch.long),
        outputs={} if outputs is None else {"patches": outputs},
    )


def make_outputs(target, condition=()):
    return OutputBatch(slots=None, document=torch.arange(len(target)), target=target, condition=condition)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = PatchLabelHead(target_dim=8, num_classes=4, num_colors=3, box_weight=2.0)
    head.node = "patches"
    return head


@pytest.fixture
def target():
    """Two pictures of three patches; objects under patches (0, 1), (1, 0), (1, 2)."""
    target = torch.zeros(2, 3, 7)
    target[0, 1] = torch.tensor([1, 3, 2, 0.1, 0.2, 0.5, 0.6])
    target[1, 0] = torch.tensor([1, 0, 1, 0.3, 0.3, 0.9, 0.8])
    target[1, 2] = torch.tensor([1, 2, 0, 0.0, 0.5, 0.4, 1.0])
    return target


def run(head, tokens, outputs):
    return head(None, make_batch(outputs), {"image": Features(tokens=tokens)}, None)


def test_losses_by_hand(head, target):
    tokens = torch.randn(2, 3, 8)
    out = run(head, tokens, make_outputs(target))
    said = head.readout(tokens)
    inside = target[..., 0] > 0
    wanted = {
        "objectness": F.binary_cross_entropy_with_logits(said[..., 0], target[..., 0], reduction="sum"),
        "class": F.cross_entropy(said[inside][:, 1:5], torch.tensor([3, 0, 2]), reduction="sum"),
        "color": F.cross_entropy(said[inside][:, 5:8], torch.tensor([2, 1, 0]), reduction="sum"),
        "box": 2.0 * F.smooth_l1_loss(said[inside][:, 8:], target[inside][:, 3:], beta=0.05, reduction="sum") / 4,
    }
    for name, loss in wanted.items():
        torch.testing.assert_close(out.losses[name], loss)
    assert {name: int(count) for name, count in out.counts.items()} == {
        "objectness": 6,
        "class": 3,
        "color": 3,
        "box": 3,
    }


def test_sums_add_up_over_items(head, target):
    tokens = torch.randn(2, 3, 8)
    together = run(head, tokens, make_outputs(target))
    singles = [run(head, tokens[i : i + 1], make_outputs(target[i : i + 1])) for i in range(2)]
    for name, loss in together.losses.items():
        torch.testing.assert_close(loss, singles[0].losses[name] + singles[1].losses[name])
        assert together.counts[name] == singles[0].counts[name] + singles[1].counts[name]


def test_outputs_name_the_picture_that_they_describe(head, target):
    tokens = torch.randn(3, 3, 8)
    swapped = run(head, tokens, make_outputs(target, (("image", 2), ("image", 0))))
    straight = run(head, tokens[[2, 0]], make_outputs(target))
    for name in straight.losses:
        torch.testing.assert_close(swapped.losses[name], straight.losses[name])


def test_predictions(head, target):
    out = run(head, torch.randn(2, 3, 8), make_outputs(target))
    shapes = {name: tuple(value.shape) for name, value in out.predictions.items()}
    assert shapes == {"objectness": (2, 3), "class": (2, 3), "color": (2, 3), "box": (2, 3, 4)}
    assert out.predictions["class"].max() < 4
    assert 0 <= out.predictions["objectness"].min() <= out.predictions["objectness"].max() <= 1


def test_a_prompt_without_targets_still_predicts(head):
    outputs = OutputBatch(slots=None, document=torch.arange(2))
    out = run(head, torch.randn(2, 3, 8), outputs)
    assert out.predictions["box"].shape == (2, 3, 4)
    assert all(float(loss.detach()) == 0 for loss in out.losses.values())


def test_a_batch_without_items_touches_the_parameters_with_zero(head):
    out = run(head, torch.randn(2, 3, 8), None)
    sum(out.losses.values()).backward()
    assert head.readout.weight.grad.abs().sum() == 0
    assert all(int(count) == 0 for count in out.counts.values())


def test_it_opens_no_slot(head):
    assert head.spec is None
    assert head.target is None


@pytest.mark.parametrize(("column", "name", "fix"), [(1, "class", "num_classes"), (2, "color", "num_colors")])
def test_labels_out_of_range(head, target, column, name, fix):
    target[1, 0, column] = 9
    with pytest.raises(DataError, match=rf"{name} 9 is outside 0\.\.\d; raise {fix}"):
        run(head, torch.randn(2, 3, 8), make_outputs(target))


def test_targets_of_another_grid(head, target):
    with pytest.raises(DataError, match=r"targets of shape \(2, 3, 7\) for tokens of shape \(2, 4, 8\)"):
        run(head, torch.randn(2, 4, 8), make_outputs(target))


def test_an_encoder_node_that_is_not_there(head, target):
    with pytest.raises(DataError, match=r"reads encoder node 'image'; the batch has \['video'\]"):
        head(None, make_batch(make_outputs(target)), {"video": Features(tokens=torch.zeros(2, 3, 8))}, None)


def test_coordinates_are_classified_into_bins(target):
    torch.manual_seed(0)
    head = PatchLabelHead(target_dim=8, num_classes=4, num_colors=3, num_bins=10)
    head.node = "patches"
    tokens = torch.randn(2, 3, 8)
    out = run(head, tokens, make_outputs(target))
    inside = target[..., 0] > 0
    logits = head.readout(tokens)[inside][:, -44:].reshape(3, 4, 11)
    wanted = (target[inside][:, 3:] * 10).round().long()
    by_hand = sum(F.cross_entropy(logits[:, k], wanted[:, k], reduction="sum") for k in range(4)) / 4
    torch.testing.assert_close(out.losses["bins"], by_hand)
    assert int(out.counts["bins"]) == 3
