import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._gates import softmax
from mmunify.experts.low_rank._router import Router

X = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[0, 1, 2], [2, 2, 0]])


def route(router, gate, training=False, x=X, **tokens):
    with use_tokens(TokenContext(**tokens)):
        return router(x, gate, training, "layers.0.up")


@pytest.mark.parametrize(("reads", "width"), [("layer", 5), ("task", 3), ("modality", 3), ("hidden", 7)])
def test_the_gate_has_a_column_per_number_that_it_reads(reads, width):
    assert Router(num_experts=4, weigh=softmax, reads=reads, ids=3, hidden_dim=7).width(5) == width


@pytest.mark.parametrize("reads", ["task", "modality"])
def test_ids_choose_a_column(reads):
    gate = torch.randn(4, 3, requires_grad=True)
    weights, logits = route(Router(num_experts=4, weigh=softmax, reads=reads, ids=3), gate, **{reads: IDS})
    one_hot = torch.nn.functional.one_hot(IDS, 3).float()
    torch.testing.assert_close(logits, one_hot @ gate.T)
    torch.testing.assert_close(weights, logits.softmax(-1))
    weights[..., 0].sum().backward()
    assert gate.grad.abs().min() > 0


def test_hidden_states_take_the_place_of_the_input():
    gate, hidden = torch.randn(4, 7), torch.randn(2, 3, 7)
    router = Router(num_experts=4, weigh=softmax, reads="hidden", hidden_dim=7)
    for x in (X, X.flatten(0, 1)):
        weights, _ = route(router, gate, x=x, hidden=hidden)
        torch.testing.assert_close(weights.flatten(0, -2), (hidden @ gate.T).softmax(-1).flatten(0, 1))


def test_a_gate_by_task_needs_no_matrix():
    router = Router(num_experts=3, weigh=None)
    assert router.width(5) == 0
    weights, logits = route(router, None, task=IDS)
    assert logits is None
    assert torch.equal(weights, torch.nn.functional.one_hot(IDS, 3).float())


def test_jitter_is_multiplied_in_training_and_leaves_the_input_alone():
    router, gate = Router(num_experts=5, weigh=softmax, jitter=0.1), torch.eye(5)
    before = X.clone()
    _, noisy = route(router, gate, training=True)
    ratio = noisy / X
    assert 0.9 <= ratio.min() < 0.97 and 1.03 < ratio.max() <= 1.1
    assert torch.equal(before, X)
    _, quiet = route(router, gate, training=False)
    assert torch.equal(quiet, X)


@pytest.mark.parametrize(("float32", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_precision_of_the_gate(float32, dtype):
    router = Router(num_experts=4, weigh=softmax, float32=float32)
    weights, _ = route(router, torch.randn(4, 5), x=X.bfloat16())
    assert weights.dtype == dtype


def test_what_the_context_lacks_is_named_with_the_layer():
    router = Router(num_experts=4, weigh=softmax, reads="modality", ids=2)
    with pytest.raises(UserError, match="layers.0.up: its gate reads modality of every token, but the token context"):
        route(router, torch.randn(4, 2))
    with pytest.raises(UserError, match="layers.0.up: its gate reads task"):
        Router(num_experts=4, weigh=None)(X, None, False, "layers.0.up")
    with pytest.raises(UserError, match=r"layers.0.up: modality id 2 has no row, there are 2 \(0..1\)"):
        route(router, torch.randn(4, 2), modality=IDS)
