import pytest
import torch

from mmunify.errors import DataError
from mmunify.layers.condition_resampler import ConditionResampler, average_groups

TINY = {"num_queries": 4, "dim": 16, "depth": 2, "num_heads": 2, "head_dim": 8}


def test_parameters_of_seed_x():
    """Qwen-VL's features of 4096 become 64 x 2048 and 1280: 61.2 M parameters."""
    with torch.device("meta"):
        resampler = ConditionResampler(4096, 2048, 1280)
        sequence, pooled = resampler(torch.empty(2, 64, 4096))
    assert sum(p.numel() for p in resampler.parameters()) == 61_245_696
    assert sequence.shape == (2, 64, 2048)
    assert pooled.shape == (2, 1280)


def test_any_number_of_features_is_read():
    resampler = ConditionResampler(6, 10, **TINY)
    for length in (64, 256):
        sequence, pooled = resampler(torch.randn(2, length, 6))
        assert sequence.shape == (2, 4, 10)
        assert pooled is None


def test_features_are_averaged_to_what_it_was_trained_on():
    """256 features of an encoder and 64 of a head are the same input, if the 64 are the means."""
    torch.manual_seed(0)
    resampler = ConditionResampler(6, 10, 8, **TINY, inputs=64)
    states = torch.randn(2, 256, 6)
    pooled = states.unflatten(1, (64, 4)).mean(2)
    torch.testing.assert_close(average_groups(states, 64), pooled)
    for one, other in zip(resampler(states), resampler(pooled), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(DataError, match="100 features can't be averaged to inputs=64"):
        resampler(torch.randn(1, 100, 6))


def test_masked_features_change_nothing():
    torch.manual_seed(0)
    resampler, states = ConditionResampler(6, 10, 8, **TINY), torch.randn(1, 5, 6)
    mask = torch.tensor([[True, True, True, False, False]])
    noisy = torch.where(mask[..., None], states, 99.0)
    for one, other in zip(resampler(states, mask), resampler(noisy, mask), strict=True):
        torch.testing.assert_close(one, other)


def test_the_sequence_can_be_normalised():
    sequence, _ = ConditionResampler(6, 10, **TINY, final_norm=True)(torch.randn(2, 5, 6))
    torch.testing.assert_close(sequence.mean(-1), torch.zeros(2, 4), rtol=0, atol=1e-5)
