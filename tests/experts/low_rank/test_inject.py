import copy

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._inject import (
    LowRankLinear,
    ThinProduct,
    clean_name,
    find_blocks,
    find_linears,
    inject,
    without_low_rank,
)


def block():
    return nn.ModuleDict({"gate_proj": nn.Linear(6, 8), "down_proj": nn.Linear(8, 6), "act": nn.GELU()})


def model():
    layers = nn.ModuleList(nn.ModuleDict({"mlp": block(), "norm": nn.LayerNorm(6)}) for _ in range(2))
    return nn.ModuleDict({"layers": layers, "head": nn.Linear(6, 4)})


class Zero(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.a * 0


def wrap(module, match):
    return inject(module, match, lambda name, linear: Zero(), "Tuner")


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        ("*.gate_proj", ["layers.0.mlp.gate_proj", "layers.1.mlp.gate_proj"]),
        (["*.1.*_proj", "head"], ["layers.1.mlp.gate_proj", "layers.1.mlp.down_proj", "head"]),
        (["*_proj", "!layers.0.*", "!*.gate_proj"], ["layers.1.mlp.down_proj"]),
        (["*", "!*.mlp.*", "layers.0.mlp.*"], ["layers.0.mlp.gate_proj", "layers.0.mlp.down_proj", "head"]),
    ],
)
def test_globs_in_order_the_last_match_wins(match, wanted):
    assert wrap(model(), match) == wanted


def test_names_and_parameters_stay_and_old_checkpoints_load():
    plain = model()
    tuned = copy.deepcopy(plain)
    before = dict(tuned.named_parameters())
    linear = tuned["layers"][0]["mlp"]["gate_proj"]
    wrap(tuned, "*.mlp.*_proj")
    after = dict(tuned.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert tuned["layers"][0]["mlp"]["gate_proj"] is linear
    new = set(after) - set(before)
    assert new == {f"layers.{i}.mlp.{name}_proj.low_rank.a" for i in range(2) for name in ("gate", "down")}
    result = tuned.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) == new


def test_a_copy_is_independent_and_the_mode_is_taken_over():
    frozen = model().eval()
    wrap(frozen, "head")
    twin = copy.deepcopy(frozen)
    assert isinstance(twin["head"], LowRankLinear)
    assert twin["head"].low_rank.a is not frozen["head"].low_rank.a
    assert not twin["head"].low_rank.training


def test_a_shared_linear_is_wrapped_once_and_a_bare_linear_too():
    shared = nn.Linear(4, 4)
    both = nn.ModuleDict({"one": shared, "two": shared})
    assert wrap(both, "*") == ["one"]
    assert both["one"] is both["two"]
    assert wrap(nn.ModuleDict({"one": (tied := nn.Linear(4, 4)), "two": tied}), "two") == ["two"]
    assert wrap(nn.Linear(2, 2), "*") == [""]


def test_tied_weights_stay_tied():
    tied = nn.ModuleDict({"table": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    tied["head"].weight = tied["table"].weight
    wrap(tied, "head")
    assert tied["head"].weight is tied["table"].weight


@pytest.mark.parametrize(
    ("dtype", "wanted"), [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2]
)
def test_new_parameters_have_at_least_32_bits(dtype, wanted):
    module = model().to(dtype)
    wrap(module, "head")
    assert module["head"].low_rank.a.dtype == wanted
    assert module["head"].weight.dtype == dtype


def test_a_glob_without_linears_names_the_nearest():
    with pytest.raises(UserError, match=r"'\*\.mpl\.gate_proj' names none of the 5 linears of ModuleDict") as caught:
        wrap(model(), "*.mpl.gate_proj")
    assert "layers.*.mlp.gate_proj" in str(caught.value)
    with pytest.raises(UserError, match=r"it names 2 other modules \(LayerNorm\)"):
        wrap(model(), "*.norm")
    with pytest.raises(UserError, match="there is no linear"):
        wrap(nn.GELU(), "*")
    with pytest.raises(UserError, match="excludes every linear"):
        wrap(model(), ["head", "!h*"])


def test_what_cannot_be_wrapped_is_refused_and_nothing_changes():
    module = model()
    wrap(module, "layers.1.mlp.gate_proj")
    before = [name for name, _ in module.named_parameters()]
    with pytest.raises(UserError, match="layers.1.mlp.gate_proj already has a Zero; let only one tuner match it"):
        wrap(module, "*_proj")
    assert [name for name, _ in module.named_parameters()] == before
    with pytest.raises(UserError, match="out_proj is a torch.*NonDynamicallyQuantizableLinear"):
        wrap(nn.MultiheadAttention(4, 2), "out_proj")


def test_clean_names():
    assert clean_name("_orig_mod.layers.0._checkpoint_wrapped_module.mlp.weight") == "layers.0.mlp.weight"
    assert clean_name("layers.0._checkpoint_wrapped_module") == "layers.0"
    compiled = nn.ModuleDict({"net": nn.ModuleDict({"_orig_mod": nn.Sequential(nn.Linear(2, 2))})})
    assert list(find_linears(compiled, ["net.0"], "Tuner")) == ["net.0"]


def test_blocks_are_modules_with_linears_inside():
    assert list(find_blocks(model(), ["*.mlp"], "Tuner")) == ["layers.0.mlp", "layers.1.mlp"]
    with pytest.raises(UserError, match=r"'head' names none of the 6 blocks of ModuleDict; it names 1 other modules"):
        find_blocks(model(), ["head"], "Tuner")
    taken = model()
    taken["layers"][0]["mlp"].low_rank = Zero()
    with pytest.raises(UserError, match="layers.0.mlp already has a Zero"):
        find_blocks(taken, ["*.mlp"], "Tuner")


def test_terms_can_be_switched_off_for_a_while():
    linear = nn.Linear(4, 3)
    wrap(linear, "")
    linear.low_rank.forward = lambda x: 1.0
    x = torch.randn(2, 4)
    plain = nn.functional.linear(x, linear.weight, linear.bias)
    with pytest.raises(ZeroDivisionError), without_low_rank(linear):
        assert torch.equal(linear(x), plain)
        raise ZeroDivisionError
    assert torch.equal(linear(x), plain + 1)


def test_a_thin_product_must_say_what_it_multiplies():
    with pytest.raises(TypeError, match="abstract method '?narrow"):
        ThinProduct()
