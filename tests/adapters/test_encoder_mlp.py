import pytest
import torch

from mmunify.adapters.encoder_mlp import EncoderMLPAdapter
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.types import Features

TINY = {"depth": 2, "num_heads": 2, "hidden_dim": 24}


def example(folder):
    return TINY


def test_every_token_sees_every_other_and_knows_its_place():
    torch.manual_seed(0)
    adapter = EncoderMLPAdapter(16, 6, **TINY).eval()
    torch.nn.init.normal_(adapter.connector.blocks[0].value.weight)
    torch.nn.init.normal_(adapter.connector.blocks[0].output.weight)
    torch.nn.init.normal_(adapter.connector.blocks[0].query.weight)
    torch.nn.init.normal_(adapter.connector.blocks[0].key.weight)
    states = torch.randn(1, 4, 16)
    changed = states.clone()
    changed[:, 3] += 1
    run = lambda x: adapter(Features(tokens=x), Context()).tokens  # noqa: E731
    assert (run(states)[:, 0] - run(changed)[:, 0]).abs().max() > 1e-4
    assert (run(states).flip(1) - run(states.flip(1))).abs().max() > 1e-4


def test_the_answer_has_the_given_gain():
    adapter = EncoderMLPAdapter(16, 64, **TINY, gain=5.5**0.5).eval()
    made = adapter(Features(tokens=torch.randn(3, 4, 16)), Context()).tokens
    torch.testing.assert_close(made.square().mean(-1), torch.full((3, 4), 5.5), rtol=0.2, atol=0)


def test_published_size():
    """MetaQuery's connector for a backbone of width 896: 24 blocks with heads of 64."""
    with torch.device("meta"):
        adapter = EncoderMLPAdapter(896, 2304)
    assert len(adapter.connector.blocks) == 24 and adapter.connector.blocks[0].num_heads == 14


def test_no_blocks_are_refused():
    with pytest.raises(UserError, match="an encoder_mlp needs a depth of at least 1, got 0"):
        EncoderMLPAdapter(16, 6, depth=0)
