"""Attention in 32 bits where 16 are slow: the same numbers, more exact; nothing else changes."""

import pytest
import torch
from torch.nn import functional as F

from mmunify.layers.sdpa import attend, in_fast_precision

MASK = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.3


def states(dtype, learns=True):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, length, 8, generator=generator).to(dtype).requires_grad_(learns) for length in (5, 7, 7)]


def types_of(learns, dtype, autocast):
    """In which type a kernel is run, and of which type the answer is."""
    seen = []

    def kernel(query, key, value, mask):
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return F.scaled_dot_product_attention(query, key, value, mask)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        made = in_fast_precision(kernel, *states(dtype, learns), None)
    return seen, made.dtype


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float32, True)]
)
def test_what_learns_in_16_bits_is_computed_in_32(dtype, autocast):
    assert types_of(True, dtype, autocast) == ([(torch.float32, False)], torch.bfloat16)
    assert types_of(False, dtype, autocast) == ([(dtype, autocast)], torch.bfloat16)


def test_other_types_are_left_alone():
    for dtype in (torch.float32, torch.float64):
        assert types_of(True, dtype, False) == ([(dtype, False)], dtype)


@pytest.mark.parametrize("mask", [None, MASK, MASK.to(torch.bfloat16)])
def test_answers_and_gradients_are_those_of_exact_attention(mask):
    ours, exact = states(torch.bfloat16), [each.detach().double().requires_grad_() for each in states(torch.bfloat16)]
    made = attend(*ours, mask)
    wide = None if mask is None else mask if mask.dtype == torch.bool else mask.double()
    wanted = F.scaled_dot_product_attention(*exact, attn_mask=wide)
    torch.testing.assert_close(made.double(), wanted, rtol=2**-8, atol=1e-6)
    grads = [torch.autograd.grad(each.double().square().sum(), of) for each, of in ((made, ours), (wanted, exact))]
    for our, true in zip(*grads, strict=True):
        torch.testing.assert_close(our.double(), true, rtol=2**-6, atol=2**-6)


def test_dropped_weights():
    query, key, value = states(torch.float32)
    torch.manual_seed(0)
    dropped = attend(query, key, value, dropout=0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(dropped, F.scaled_dot_product_attention(query, key, value, dropout_p=0.5))
    assert not torch.isclose(dropped, attend(query, key, value)).all()
