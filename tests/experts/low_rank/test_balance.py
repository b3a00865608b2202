import pytest
import torch

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import cv_squared, localized, make_balance
from mmunify.experts.low_rank._context import TokenContext

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


@pytest.mark.parametrize("name", ["cv_squared", "localized"])
def test_no_valid_token_gives_zero_and_finite_gradients(name):
    weights = WEIGHTS.clone().requires_grad_()
    balance = make_balance(name, 2, 0.1, (1,))
    loss = balance(weights, context([1, 0], valid=torch.zeros(2, 2, dtype=torch.bool)))
    loss.backward()
    assert loss == 0
    assert weights.grad.isfinite().all()


def test_impossible_balances_are_refused():
    with pytest.raises(UserError, match="no balance loss named 'local'; did you mean 'localized'"):
        make_balance("local", 4, 0.1, (1,))
    with pytest.raises(UserError, match="num_experts must be even, got 3"):
        make_balance("localized", 3, 0.1, (1,))
    with pytest.raises(UserError, match="no task ids"):
        localized(WEIGHTS, TokenContext(), delta=0.1, tasks=(1,))
    assert make_balance("none", 3, 0.1, ()) is None
