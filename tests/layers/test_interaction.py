import pytest
import torch

from mmunify.errors import DataError
from mmunify.layers.interaction import Interaction
from mmunify.testing import randomize
from mmunify.types import Features

SIZES = {"depth": 1, "num_heads": 2, "hidden_dim": 16}
STATES = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
SOURCE = Features(tokens=torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1)), grid=(3, 4))
KNOWN = torch.tensor([True, False])


def test_it_starts_silent():
    states, residual = Interaction(12, 8, 6, **SIZES)(STATES, SOURCE, KNOWN, (8, 8))
    assert torch.equal(states, STATES)
    assert residual.shape == (2, 6, 8, 8)
    assert not residual.any()


def test_a_source_that_may_not_be_used_changes_nothing():
    module = randomize(Interaction(12, 8, 6, **SIZES))
    states, residual = module(STATES, SOURCE, KNOWN, (8, 8))
    assert (states[0] - STATES[0]).abs().max() > 1e-3
    assert residual[0].abs().max() > 1e-3
    assert torch.equal(states[1], STATES[1])
    assert not residual[1].any()


def test_both_sides_hear_each_other():
    module = randomize(Interaction(12, 8, 6, **SIZES))
    both = torch.tensor([True, True])
    states, residual = module(STATES, SOURCE, both, (8, 8))
    other_words = module(STATES.flip(0), SOURCE, both, (8, 8))[1]
    other_source = module(STATES, Features(tokens=SOURCE.tokens.flip(0), grid=SOURCE.grid), both, (8, 8))[0]
    assert (other_words - residual).abs().max() > 1e-4
    assert (other_source - states).abs().max() > 1e-4


def test_places_are_those_of_sam():
    from transformers.models.sam.configuration_sam import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamPositionalEmbedding

    theirs = SamPositionalEmbedding(SamVisionConfig(num_pos_feats=4, scale=1.0))
    module = Interaction(12, 8, 6, **SIZES)
    module.frequencies.copy_(theirs.positional_embedding)
    down, across = torch.meshgrid((torch.arange(3) + 0.5) / 3, (torch.arange(4) + 0.5) / 4, indexing="ij")
    wanted = theirs(torch.stack([across, down], dim=-1)).flatten(0, 1)
    torch.testing.assert_close(module._places((3, 4), STATES), wanted)


@pytest.mark.parametrize("source", [None, Features(tokens=SOURCE.tokens)])
def test_a_source_without_a_raster(source):
    with pytest.raises(DataError, match="reads features of the source picture with a grid.*interaction: false"):
        Interaction(12, 8, 6, **SIZES)(STATES, source, KNOWN, (8, 8))
