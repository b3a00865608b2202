import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner

X, R = 3, 2


def model(seed=0, **settings):
    torch.manual_seed(seed)
    module = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"up": nn.Linear(6, 8)}) for _ in range(2))})
    tuner = LoRAMoETuner("*.up", **{"rank": R, "num_experts": X, **settings})
    tuner.apply(module)
    for name, parameter in module.named_parameters():
        if "low_rank" in name:
            nn.init.normal_(parameter)
    return module, tuner


def reference(x, state, name, linear):
    """LoRAMoE's layer as its checkpoint names describe it."""
    weights = nn.functional.softmax(x @ state[f"{name}.lora_route.weight"].T, dim=-1)
    result = linear(x)
    for i in range(X):
        a, b = state[f"{name}.lora_A{i}.weight"], state[f"{name}.lora_B{i}.weight"]
        result = result + weights[..., i, None] * (x @ a.T @ b.T) * (32 / R)
    return result


def test_names_are_loramoes_and_compute_the_same():
    module, tuner = model()
    state = tuner.written(module)
    start = "base_model.model.layers.1.up"
    assert len(state) == 2 * (2 * X + 1)
    assert state[f"{start}.lora_A2.weight"].shape == (R, 6) and state[f"{start}.lora_B0.weight"].shape == (8, R)
    x, linear = torch.randn(4, 6), module["layers"][1]["up"]
    frozen = lambda x: nn.functional.linear(x, linear.weight, linear.bias)  # noqa: E731
    torch.testing.assert_close(linear(x), reference(x, state, start, frozen))


@pytest.mark.parametrize("start", ["base_model.model.", "base_model.model.model.", ""])
def test_there_and_back(start):
    module, tuner = model()
    state = {name.replace("base_model.model.", start): t for name, t in tuner.written(module).items()}
    other, _ = model(seed=1)
    assert tuner.read(other, state) == ["layers.0.up", "layers.1.up"]
    for name, tensor in module.state_dict().items():
        if "low_rank" in name:
            assert torch.equal(tensor, other.state_dict()[name])


def test_what_does_not_fit_is_refused_and_nothing_changes():
    module, tuner = model()
    state = tuner.written(module)
    start = "base_model.model.layers.1.up"
    for changed, message in (
        (
            {f"{start}.lora_A2.weight": torch.zeros(5, 6)},
            r"up.lora_A2 has shape \(5, 6\), but the module needs \(2, 6\)",
        ),
        ({f"{start}.lora_A3.weight": torch.zeros(2, 6)}, r"layers.1.up has 4 experts, .* but the module has 3"),
        (
            {f"{start}.bias": torch.zeros(8)},
            r"1 tensors \(base_model.model.layers.1.up.bias\) are no part of a LoRA-MoE",
        ),
    ):
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with pytest.raises(UserError, match=message):
            tuner.read(module, {**{k: v + 1 for k, v in state.items()}, **changed})
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    half = {name: tensor for name, tensor in state.items() if "layers.0" in name}
    with pytest.raises(UserError, match=r"has nothing for 1 linears of the module \(layers.1.up, ...\)"):
        tuner.read(module, half)
    with pytest.raises(UserError, match="has no linear with a mixture"):
        tuner.written(nn.Linear(2, 2))
