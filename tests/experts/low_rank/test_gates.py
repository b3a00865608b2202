import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._gates import gate_logits, make_gate, sigmoid, softmax, top_k

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)


def test_softmax_and_sigmoid():
    e = torch.tensor([1.0, 2.718281828459045, 7.38905609893065, 20.085536923187668]).double()
    torch.testing.assert_close(softmax(LOGITS)[0], e / e.sum())
    torch.testing.assert_close(sigmoid(LOGITS)[0], e / (1 + e))


@pytest.mark.parametrize("renormalize", [True, False])
def test_top_k_keeps_exactly_k_also_in_a_tie(renormalize):
    weights = top_k(LOGITS, 2, renormalize)
    assert (weights > 0).sum(-1).tolist() == [2, 2]
    assert weights[0, :2].tolist() == [0, 0]
    kept = softmax(LOGITS)[0, 2:]
    torch.testing.assert_close(weights[0, 2:], kept / kept.sum() if renormalize else kept)


def test_temperature_divides_the_logits():
    warm = make_gate("softmax", 4, 2, 4.0, True)
    torch.testing.assert_close(warm(LOGITS), softmax(LOGITS / 4))


@pytest.mark.parametrize(
    ("name", "k", "temperature", "message"),
    [
        ("softmacks", 2, 1.0, "no gate named 'softmacks'; did you mean 'softmax'"),
        ("top_k", 5, 1.0, r"top_k must be in 1..4 for 4 experts, got 5"),
        ("top_k", 0, 1.0, "got 0"),
        ("sigmoid", 2, 0.0, "temperature of a gate must be above 0, got 0.0"),
    ],
)
def test_impossible_gates_are_refused(name, k, temperature, message):
    with pytest.raises(UserError, match=message):
        make_gate(name, 4, k, temperature, True)


@pytest.mark.parametrize("rows", [(3,), (2, 3)])
def test_logits_have_the_gradients_of_a_product(rows):
    x = torch.randn(*rows, 5, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gate_logits(x, gate), x @ gate.T)
    assert torch.autograd.gradcheck(gate_logits, (x, gate))


def test_logits_are_float32_under_autocast_and_keep_the_input_as_it_came():
    x, gate = torch.randn(6, 64).bfloat16(), torch.randn(4, 64, requires_grad=True)
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.autocast("cpu", torch.bfloat16),
    ):
        logits = gate_logits(x, gate)
        logits.sum().backward()
    assert logits.dtype == gate.grad.dtype == torch.float32
    assert torch.equal(logits, x.float() @ gate.T)
    torch.testing.assert_close(gate.grad, x.float().sum(0).expand(4, 64))
    assert [t.dtype for t in kept] == [torch.bfloat16, torch.float32]
