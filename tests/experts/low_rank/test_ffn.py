"""What experts of whole blocks refuse and keep; their equations are in tests/equalities."""

import copy

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, checkpoint_context_fn, use_tokens
from mmunify.experts.low_rank._inject import without_low_rank
from mmunify.experts.low_rank._routing import collect_aux, gate_statistics
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner


class FeedForward(nn.Module):
    def __init__(self, after=None):
        super().__init__()
        self.up, self.drop, self.down, self.after = nn.Linear(6, 10), nn.Dropout(0.0), nn.Linear(10, 6), after

    def forward(self, x):
        out = self.drop(self.down(nn.functional.gelu(self.up(x))))
        return out if self.after is None else self.after(out)


def feed_forward(after=None):
    return FeedForward(after)


def tuned(model=None, lively=True, **settings):
    torch.manual_seed(0)
    model = model or nn.ModuleDict({"mlp": feed_forward()})
    node = {"match": "*mlp", "rank": 2, "num_experts": 3, **settings}
    LoRAMoETuner(**{**node, "options": {"site": "ffn", **settings.get("options", {})}}).apply(model)
    for name, parameter in model.named_parameters():
        if lively and name.endswith("low_rank.b"):
            nn.init.normal_(parameter)
    return model


def tiny_llama(lively=True, **settings):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return tuned(LlamaModel(LlamaConfig(vocab_size=32, **sizes)), lively, **settings)


def test_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in tuned().named_parameters() if "low_rank" in name}
    assert shapes == {
        "mlp.up.low_rank.a": (6, 6),
        "mlp.up.low_rank.b": (10, 6),
        "mlp.down.low_rank.a": (6, 10),
        "mlp.down.low_rank.b": (6, 6),
        "mlp.low_rank.gate": (3, 6),
    }


def test_the_last_linear_mixes_before_it_multiplies():
    model = tuned()
    assert [getattr(model["mlp"], name).low_rank.closes for name in ("up", "down")] == [False, True]
    other = tuned(nn.ModuleDict({"mlp": feed_forward(nn.Tanh())}))
    assert not other["mlp"].down.low_rank.closes


def test_every_frozen_matrix_is_used_once_per_token(monkeypatch):
    model, rows = tuned(), []
    plain = nn.functional.linear
    monkeypatch.setattr(
        nn.functional,
        "linear",
        lambda x, w, b=None: (rows.append(x[..., 0].numel()) if b is not None else None, plain(x, w, b))[1],
    )
    model["mlp"](torch.randn(4, 5, 6))
    assert rows == [20, 20]


def test_a_block_can_be_copied_between_forward_and_backward_and_switched_off():
    model, x = tuned(), torch.randn(2, 3, 6)
    frozen = feed_forward()
    frozen.load_state_dict({k: v for k, v in model["mlp"].state_dict().items() if "low_rank" not in k})
    out = model["mlp"](x)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin["mlp"](x), out)
    with without_low_rank(model):
        assert torch.equal(model["mlp"](x), frozen(x))
    assert not torch.allclose(model["mlp"](x), frozen(x))


def test_losses_and_statistics_of_the_blocks_gate():
    llama = tiny_llama(balance="cv_squared", balance_weight=1.0)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    with use_tokens(TokenContext(valid=valid)):
        llama(torch.randint(32, (2, 3)))
        aux = collect_aux(llama)
    assert list(gate_statistics(llama)) == ["layers.0.mlp", "layers.1.mlp"]
    aux["balance"].backward()
    assert all(layer.mlp.low_rank.gate.grad.abs().max() > 0 for layer in llama.layers)


def test_dropout_draws_one_mask_for_all_experts_and_spares_the_frozen_block():
    fresh = tuned(lively=False, dropout=0.5)
    x = torch.randn(2, 3, 6)
    with without_low_rank(fresh):
        plain = fresh["mlp"](x)
    assert torch.equal(fresh["mlp"](x), plain)
    model = tuned(dropout=0.5)
    torch.manual_seed(1)
    first = model["mlp"](x)
    assert not torch.allclose(first, model["mlp"](x))
    assert torch.equal(model.eval()["mlp"](x), model["mlp"](x))


def test_checkpointed_llama_equals_plain_with_tasks_in_the_gate():
    results = []
    ids, task = torch.randint(32, (2, 6)), torch.randint(3, (2, 6))
    for recompute in (False, True):
        llama = tiny_llama(options={"gate_input": "task", "ids": 3}).train()
        if recompute:
            keywords = {"use_reentrant": False, "context_fn": checkpoint_context_fn}
            llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords)
        with use_tokens(TokenContext(task=task)):
            out = llama(input_ids=ids, use_cache=False).last_hidden_state
        out.square().mean().backward()
        results.append({name: p.grad for name, p in llama.named_parameters() if "low_rank" in name})
    assert len(results[0]) == 2 * 7 and all(grad.abs().max() > 0 for grad in results[0].values())
    torch.testing.assert_close(results[1], results[0])


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x.reshape(-1, 6)).view_as(x)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x, y):
        return self.fc(x) + y


def test_blocks_that_cannot_be_mixed_are_refused():
    with pytest.raises(UserError, match=r"mlp \(TwoInputs\) doesn't run on one input of width 6"):
        tuned(nn.ModuleDict({"mlp": TwoInputs()}))
    flat = tuned(nn.ModuleDict({"mlp": Flat()}))
    with pytest.raises(
        UserError, match=r"a linear 6 -> 6 of a block with 3 experts got \(40, 6\) instead of \[4 ...\]"
    ):
        flat["mlp"](torch.randn(2, 5, 6))
    nested = nn.ModuleDict({"mlp": feed_forward(after=nn.Identity())})
    nested["mlp"].mlp = feed_forward()
    with pytest.raises(UserError, match="mlp and mlp.mlp hold the same linear; match one of the two blocks"):
        tuned(nested)
    with pytest.raises(UserError, match="mlp is a Sequential, which would run its term as one more step"):
        tuned(nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(6, 6))}))
    with pytest.raises(UserError, match=r"rank 7 is above 6, the smaller side of mlp.up \(6 -> 10\)"):
        tuned(rank=7)


def test_experts_per_layer_reach_their_blocks():
    llama = tiny_llama(num_experts=[2, 5])
    assert [tuple(layer.mlp.low_rank.gate.shape) for layer in llama.layers] == [(2, 16), (5, 16)]
    with pytest.raises(UserError, match="num_experts has 3 numbers, but match names modules of 2 layers"):
        tiny_llama(num_experts=[2, 5, 2])


def test_half_precision_learns_in_float32():
    model = nn.ModuleDict({"mlp": feed_forward()}).bfloat16()
    tuned(model)
    out = model["mlp"](torch.randn(2, 3, 6).bfloat16())
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert {p.grad.dtype for n, p in model.named_parameters() if "low_rank" in n} == {torch.float32}
