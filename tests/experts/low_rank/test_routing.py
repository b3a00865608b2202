import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, checkpoint_context_fn, use_tokens
from mmunify.experts.low_rank._routing import collect_aux, gate_statistics
from mmunify.registry import TUNERS


def mixture(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    settings = {"balance": "cv_squared", "balance_weight": 0.5, **settings}
    TUNERS.build({"name": "lora_moe", "match": "*", "rank": 2, "num_experts": 4, **settings}).apply(model)
    return model


X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
VALID = torch.tensor([[True, True, True], [True, False, False]])


def step(model, x=X, valid=VALID):
    with use_tokens(TokenContext(valid=valid)):
        model(x)
        return collect_aux(model)


def test_loss_is_the_weighted_sum_over_layers():
    model = mixture()
    expected = 0.0
    for layer, x in ((model[0], X), (model[2], model[:2](X))):
        importance = (x @ layer.low_rank.gate.T).softmax(-1)[VALID].sum(0)
        expected += 0.5 * importance.var() / importance.mean() ** 2
    aux = step(model)
    assert list(aux) == ["balance"]
    torch.testing.assert_close(aux["balance"], expected)
    aux["balance"].backward()
    assert model[0].low_rank.gate.grad.abs().max() > 0


def test_statistics_are_means_over_valid_tokens_and_overwritten():
    model = mixture()
    for x in (torch.randn(2, 3, 6), X):
        step(model, x)
    means = gate_statistics(model)
    assert list(means) == ["0", "2"]
    torch.testing.assert_close(means["0"], (X @ model[0].low_rank.gate.T).softmax(-1)[VALID].mean(0))
    assert not means["0"].requires_grad


def test_a_loss_is_collected_once():
    model = mixture()
    assert "balance" in step(model)
    assert collect_aux(model) == {}


def test_without_balance_no_loss_and_no_graph_is_kept():
    for settings in ({"balance": "none"}, {"balance_weight": 0.0}):
        model = mixture(**settings)
        assert step(model) == {}
        assert len(gate_statistics(model)) == 2
    assert collect_aux(nn.Linear(2, 2)) == {}


def test_recomputation_leaves_no_trace():
    model = mixture()
    with use_tokens(TokenContext(valid=VALID)):
        out = checkpoint(model, X, use_reentrant=False, context_fn=checkpoint_context_fn)
        loss = collect_aux(model)["balance"] + out.sum()
    loss.backward()
    assert collect_aux(model) == {}


def test_a_model_can_be_copied_and_pickled_between_forward_and_backward():
    model = mixture()
    model(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert gate_statistics(twin) == {}
        torch.testing.assert_close(twin(X), model(X))


def test_the_context_of_the_forward_counts_whatever_is_installed_later():
    model = mixture()
    inside = step(model)["balance"]
    with use_tokens(TokenContext(valid=VALID)):
        model(X)
    with use_tokens(TokenContext(valid=~VALID)):
        torch.testing.assert_close(collect_aux(model)["balance"], inside)
    model(X)
    everything = collect_aux(model)["balance"]
    torch.testing.assert_close(everything, step(model, valid=torch.ones_like(VALID))["balance"])


def test_missing_or_foreign_contexts_are_refused(monkeypatch):
    model = mixture()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(X)
    with pytest.raises(UserError, match=r"^0: a compiled layer keeps no token context"):
        collect_aux(model)
    with pytest.raises(UserError, match=r"^0: the token context describes \(2, 2\) = 4 tokens, but the gate saw 6"):
        step(model, valid=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(UserError, match="^0: localized_balance needs the task"):
        step(mixture(balance="localized_balance"))
