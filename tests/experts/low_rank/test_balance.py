import math

import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import counted, cv_squared, entropy, localized, make_balance, switch, z
from mmunify.experts.low_rank._context import TokenContext
from mmunify.experts.low_rank._gates import make_gate

WEIGHTS = torch.tensor([[[0.7, 0.3], [0.5, 0.5]], [[0.2, 0.8], [0.4, 0.6]]], dtype=torch.float64)
"""Two documents of two tokens, two experts."""


def context(task, **fields):
    return TokenContext(task=torch.tensor(task)[:, None].expand(2, 2), **fields)


def test_localized_equals_two_samples_computed_by_hand():
    # Q = [[1.2, 0.8], [0.6, 1.4]]; task 1 favours expert 0, task 0 expert 1; delta = 0.5.
    # Z = [1.2 * 1.5, 0.8 * 0.5, 0.6 * 0.5, 1.4 * 1.5] = [1.8, 0.4, 0.3, 2.1], mean 1.15,
    # deviations [.65, -.75, -.85, .95], squares .4225 + .5625 + .7225 + .9025 = 2.61, variance 2.61 / 3 = 0.87.
    loss = localized(WEIGHTS, context([1, 0]), delta=0.5, tasks=(1,))
    assert loss.item() == pytest.approx(0.87 / 1.15**2, abs=1e-9)


def test_localized_asks_less_of_the_matching_half():
    weights = WEIGHTS.clone().requires_grad_()
    localized(weights, context([1, 0]), delta=0.5, tasks=(1,)).backward()
    assert weights.grad[0, 0, 0] > 0 > weights.grad[0, 0, 1]
    assert weights.grad[1, 0, 1] > 0 > weights.grad[1, 0, 0]


def test_localized_groups_any_tasks():
    plain = localized(WEIGHTS, context([1, 0]), delta=0.5, tasks=(1,))
    torch.testing.assert_close(localized(WEIGHTS, context([7, 4]), delta=0.5, tasks=(2, 7)), plain)


def test_packed_documents_count_as_rows_do():
    rows = localized(WEIGHTS, context([1, 0]), delta=0.5, tasks=(1,))
    packed = TokenContext(
        task=torch.tensor([[9, 1, 1, 0, 0]]),
        document=torch.tensor([[-1, 0, 0, 1, 1]]),
        valid=torch.tensor([[False, True, True, True, True]]),
    )
    padded = torch.cat([torch.full((1, 1, 2), 50.0).double(), WEIGHTS.view(1, 4, 2)], 1)
    torch.testing.assert_close(localized(padded, packed, delta=0.5, tasks=(1,)), rows)


def test_turns_of_two_types_count_as_two_documents():
    rows = localized(WEIGHTS, context([1, 0]), delta=0.5, tasks=(1,))
    talk = TokenContext(task=torch.tensor([[1, 1, 0, 3]]))
    torch.testing.assert_close(localized(WEIGHTS.view(1, 4, 2), talk, delta=0.5, tasks=(1,)), rows)


def test_documents_of_different_rows_are_different():
    same_ids = context([1, 0], document=torch.zeros(2, 2, dtype=torch.long))
    plain = localized(WEIGHTS, context([1, 0]), delta=0.5, tasks=(1,))
    torch.testing.assert_close(localized(WEIGHTS, same_ids, delta=0.5, tasks=(1,)), plain)


def test_cv_squared_by_hand():
    # Importance [1.8, 2.2]: mean 2, variance 0.08.
    assert cv_squared(WEIGHTS, TokenContext()).item() == pytest.approx(0.02, abs=1e-9)
    first = TokenContext(valid=torch.tensor([[True, False], [False, False]]))
    assert cv_squared(WEIGHTS, first).item() == pytest.approx(0.08 / 0.25, abs=1e-8)
    assert cv_squared(torch.full((3, 4), 0.25), TokenContext()) == 0


@pytest.mark.parametrize("name", ["cv_squared", "localized_balance", "switch", "z", "entropy"])
def test_no_valid_token_gives_zero_and_finite_gradients(name):
    weights = WEIGHTS.clone().requires_grad_()
    balance = make_balance(name, 2, 0.1, (1,))
    loss = balance(weights, context([1, 0], valid=torch.zeros(2, 2, dtype=torch.bool)), weights.log())
    loss.backward()
    assert loss == 0
    assert weights.grad.isfinite().all()


def test_impossible_balances_are_refused():
    with pytest.raises(UserError, match="no balance loss named 'localised_balance'; did you mean 'localized_balance'"):
        make_balance("localised_balance", 4, 0.1, (1,))
    with pytest.raises(UserError, match="num_experts must be even, got 3"):
        make_balance("localized_balance", 3, 0.1, (1,))
    with pytest.raises(UserError, match="no task ids"):
        localized(WEIGHTS, TokenContext(), delta=0.1, tasks=(1,))
    assert make_balance("none", 3, 0.1, ()) is None


def loramoe_loss(route_weight, task_types, delta):
    """LoRAMoE's constraint, sample by sample and expert by expert, from its description."""
    batch, _, experts = route_weight.shape
    values = []
    for b in range(batch):
        for n in range(experts):
            matches = (n < experts / 2 and task_types[b] == 1) or (n >= experts / 2 and task_types[b] == 0)
            values.append(route_weight[b, :, n].sum() * (1 + delta if matches else 1 - delta))
    values = torch.stack(values)
    return values.var() / (values.mean() ** 2 + 1e-10)


@pytest.mark.parametrize("documents", [True, False])
def test_with_all_tokens_localized_is_the_published_code_padding_included(documents):
    weights = torch.rand(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    valid = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    types = [1, 0, 0]
    # As a model gives them: padding has document -1 and the first document's task.
    task = torch.where(valid, torch.tensor(types)[:, None], types[0])
    document = torch.arange(3)[:, None].where(valid, torch.tensor(-1)) if documents else None
    tokens = counted(TokenContext(valid=valid, task=task, document=document), "all")
    loss = localized(weights, tokens, delta=0.3, tasks=(1,))
    torch.testing.assert_close(loss, loramoe_loss(weights, types, 0.3), rtol=0, atol=1e-12)


def test_masks_say_which_tokens_count():
    valid = torch.tensor([[True, True, False]])
    tokens = TokenContext(valid=valid, response=torch.tensor([[False, True, True]]))
    assert counted(tokens, "non_pad").valid.tolist() == [[True, True, False]]
    assert counted(tokens, "all").valid is None
    assert counted(tokens, "response").valid.tolist() == [[False, True, False]]
    with pytest.raises(UserError, match="mask 'response' needs to know the learned tokens"):
        counted(TokenContext(valid=valid), "response")


@pytest.mark.parametrize("k", [1, 2])
def test_switch_equals_mixtrals_loss(k):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(3))
    valid = torch.arange(7) < torch.tensor([[7], [4]])
    kept = make_gate("top_k", 4, k, 1.0, None)(logits)
    theirs = load_balancing_loss_func((logits.flatten(0, 1),), num_experts=4, top_k=k, attention_mask=valid.long())
    torch.testing.assert_close(switch(kept, TokenContext(valid=valid), logits), theirs)


def test_switch_of_a_dense_gate_counts_the_largest_weight():
    logits = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(3))
    one = make_gate("switch", 4, 1, 1.0, None)(logits)
    assert switch(logits.softmax(-1), TokenContext(), logits) == switch(one, TokenContext(), logits)


def test_z_and_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    first = TokenContext(valid=torch.tensor([[True, False]]))
    log2 = math.log(2)
    assert z(logits.softmax(-1), first, logits).item() == pytest.approx(log2**2)
    assert entropy(logits.softmax(-1), first, logits).item() == pytest.approx(log2)
    p = 1 / (1 + math.exp(-2))
    both = (log2 - p * math.log(p) - (1 - p) * math.log(1 - p)) / 2
    assert entropy(logits.softmax(-1), TokenContext(), logits).item() == pytest.approx(both)
    assert z(logits.softmax(-1), TokenContext(), logits).item() == pytest.approx(
        (log2**2 + math.log(1 + math.exp(2)) ** 2) / 2
    )
