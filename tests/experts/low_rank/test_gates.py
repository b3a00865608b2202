import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._gates import gate_logits, make_gate, sigmoid, softmax, top_k, top_p

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


def test_top_p_keeps_the_expert_that_crosses():
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.9, 0.05, 0.03, 0.02]], dtype=torch.float64)
    kept = top_p(probabilities.log(), 0.6)
    torch.testing.assert_close(kept, torch.tensor([[0.5, 0.3, 0, 0], [0.9, 0, 0, 0]], dtype=torch.float64))
    whole = top_p(probabilities.log(), 0.6, renormalize=True)
    torch.testing.assert_close(whole[0], torch.tensor([0.625, 0.375, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(top_p(LOGITS, 1.0), softmax(LOGITS))


@pytest.mark.parametrize(
    ("name", "renormalize", "sums"),
    [
        ("top_k", None, [1.0, 1.0]),
        ("top_k", False, [0.8808, 0.5]),
        ("top_p", None, [0.8808, 1.0]),
        ("top_p", True, [1.0, 1.0]),
        ("sigmoid", None, [3.0645, 3.9732]),
        ("sigmoid", True, [1.0, 1.0]),
        ("switch", None, [0.6439, 0.25]),
        ("softmax", True, [1.0, 1.0]),
    ],
)
def test_published_sums_of_weights_unless_told_otherwise(name, renormalize, sums):
    gate = make_gate(name, 4, 2, 1.0, renormalize, p=0.8)
    assert gate(LOGITS).sum(-1).tolist() == pytest.approx(sums, abs=1e-4)


def test_switch_keeps_the_largest_weight_of_the_softmax():
    weights = make_gate("switch", 4, 2, 1.0, None)(LOGITS)
    assert (weights > 0).sum(-1).tolist() == [1, 1]
    torch.testing.assert_close(weights[0, 3], softmax(LOGITS)[0, 3])


@pytest.mark.parametrize("p", [0, 1.5])
def test_impossible_sums_are_refused(p):
    with pytest.raises(UserError, match=rf"top_p must be in \(0, 1\], got {p}"):
        make_gate("top_p", 4, 2, 1.0, None, p)
