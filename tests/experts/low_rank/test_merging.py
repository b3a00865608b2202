import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._merging import merge, unmerge
from mmunify.experts.low_rank.lora import LoRATuner
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner


def tuned(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)).to(dtype)
    LoRATuner("*", rank=3, alpha=6, rslora=True).apply(model)
    for i in (0, 2):
        nn.init.normal_(model[i].low_rank.b)
    return model


def test_a_merged_model_computes_the_same_without_its_terms():
    model, x = tuned(), torch.randn(5, 6, dtype=torch.float64)
    before, weight = model(x), model[0].weight.clone()
    assert merge(model) == ["0", "2"]
    assert merge(model) == []
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)
    plain = nn.functional.linear(x, model[0].weight, model[0].bias)
    assert torch.equal(model[0](x), plain)
    assert unmerge(model) == ["0", "2"]
    assert unmerge(model) == []
    torch.testing.assert_close(model[0].weight, weight, rtol=0, atol=1e-14)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)


def test_half_precision_weights_are_summed_in_float32():
    model = tuned(torch.bfloat16)
    wanted = model[0].weight.float() + model[0].low_rank.weight_change()
    merge(model)
    assert torch.equal(model[0].weight, wanted.bfloat16())


def test_mixtures_and_shared_weights_are_refused():
    mixture = nn.Sequential(nn.Linear(6, 8))
    LoRAMoETuner("0", rank=2).apply(mixture)
    with pytest.raises(UserError, match="merge: 0 has a LoRAMoE, whose weights depend on its input"):
        merge(mixture)
    tied = nn.ModuleDict({"table": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    tied["head"].weight = tied["table"].weight
    LoRATuner("head", rank=2).apply(tied)
    with pytest.raises(UserError, match="the weight of head is shared with another module"):
        merge(tied)
