"""`joined_linear` = a linear over the joined table: values, gradients, precisions, memory."""

import pytest
import torch
from torch.nn import functional as F

from mmunify.layers.joined_linear import joined_linear


@pytest.fixture
def states():
    torch.manual_seed(0)
    return torch.randn(5, 6, dtype=torch.float64, requires_grad=True)


def tables(*learning, dtype=torch.float64):
    """Tables of 7, 8, 9 ... rows."""
    return [torch.randn(7 + i, 6, dtype=dtype, requires_grad=learns) for i, learns in enumerate(learning)]


@pytest.mark.parametrize("learning", [(True,), (False, True), (True, False), (False, False, True), (False, False)])
def test_is_a_linear_over_the_joined_table(states, learning):
    pieces, weights = tables(*learning), torch.randn(5, sum(7 + i for i in range(len(learning))), dtype=torch.float64)
    wanted = F.linear(states, torch.cat(pieces))
    found = joined_linear(states, pieces)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    learns = [states, *(piece for piece in pieces if piece.requires_grad)]
    wanted_gradients = torch.autograd.grad((wanted * weights).sum(), learns)
    gradients = torch.autograd.grad((found * weights).sum(), learns)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=0, atol=1e-12)


def test_gradient_is_that_of_differences(states):
    assert torch.autograd.gradcheck(lambda *inputs: joined_linear(inputs[0], inputs[1:]), (states, *tables(True, True)))


def test_frozen_states_get_no_gradient(states):
    pieces = tables(False, True)
    joined_linear(states.detach(), pieces).sum().backward()
    torch.testing.assert_close(pieces[1].grad, states.detach().sum(0).expand(8, 6))
    assert pieces[0].grad is None


def test_no_state_at_all():
    pieces = tables(True, True)
    made = joined_linear(torch.empty(0, 6, dtype=torch.float64), pieces)
    made.sum().backward()
    assert made.shape == (0, 15) and not pieces[0].grad.any()


def test_autocast_chooses_the_dtype_of_a_linear():
    states, pieces = torch.randn(5, 6, requires_grad=True), tables(False, True, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = joined_linear(states, pieces), F.linear(states, torch.cat(pieces))
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)
    found.float().sum().backward()
    assert states.grad.dtype == pieces[1].grad.dtype == torch.float32


def test_tables_are_kept_and_not_copies_of_them(states):
    pieces = tables(False, True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda t: t):
        joined_linear(states, pieces)
    assert kept == [states.data_ptr(), *(piece.data_ptr() for piece in pieces)]
