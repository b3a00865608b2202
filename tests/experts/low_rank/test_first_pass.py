import copy

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import current_tokens
from mmunify.experts.low_rank._inject import without_low_rank
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner


def tiny_llama(**settings):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaModel(LlamaConfig(vocab_size=32, **sizes)).double()
    options = {"gate_input": "hidden", **settings}
    LoRAMoETuner("*.mlp.*_proj", rank=2, num_experts=3, options=options).apply(llama)
    for name, parameter in llama.named_parameters():
        if name.endswith("low_rank.b"):
            nn.init.normal_(parameter)
    return llama.eval()


IDS = torch.randint(32, (2, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("site", ["linear", "ffn"])
def test_gates_read_the_last_hidden_states_of_the_frozen_model(site):
    llama = tiny_llama() if site == "linear" else None
    if llama is None:
        from transformers import LlamaConfig, LlamaModel

        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        llama = LlamaModel(LlamaConfig(vocab_size=32, **sizes)).double().eval()
        LoRAMoETuner("*.mlp", rank=2, num_experts=3, options={"site": "ffn", "gate_input": "hidden"}).apply(llama)
    gated = llama.layers[1].mlp.up_proj.low_rank if site == "linear" else llama.layers[1].mlp.low_rank
    assert gated.gate.shape == (3, 16)
    with without_low_rank(llama):
        frozen = llama(IDS).last_hidden_state
    llama(IDS)
    weights, tokens = gated.last_weights()
    torch.testing.assert_close(tokens.hidden, frozen)
    torch.testing.assert_close(weights, (frozen @ gated.gate.T).softmax(-1).flatten(0, 1))
    assert current_tokens() is None


def test_a_copy_runs_its_own_passes():
    llama = tiny_llama()
    twin = copy.deepcopy(llama)
    before = twin(IDS).last_hidden_state
    nn.init.zeros_(llama.layers[0].mlp.up_proj.weight)
    assert torch.equal(twin(IDS).last_hidden_state, before)


def test_decoding_with_a_cache_equals_one_pass():
    from transformers import DynamicCache

    llama, cache = tiny_llama(), DynamicCache()
    whole = llama(IDS).last_hidden_state
    pieces = [llama(IDS[:, part], past_key_values=cache).last_hidden_state for part in (slice(0, 4), slice(4, 5))]
    forgotten = llama(IDS[:, :2], past_key_values=cache)
    assert forgotten.last_hidden_state.shape[1] == 2
    cache.crop(-2)
    pieces.append(llama(IDS[:, 5:], past_key_values=cache).last_hidden_state)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


def test_a_cache_that_was_filled_elsewhere_is_refused():
    from transformers import DynamicCache

    llama, cache = tiny_llama(), DynamicCache()
    with without_low_rank(llama):
        type(llama).forward(llama, IDS[:, :3], past_key_values=cache)
    with pytest.raises(UserError, match="the cache holds 3 positions, of which only 0 went through"):
        llama(IDS[:, 3:], past_key_values=cache)


def test_a_module_without_hidden_states_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(UserError, match="Sequential has neither `dim` nor `config.hidden_size`"):
        LoRAMoETuner("0", rank=2, options={"gate_input": "hidden"}).apply(model)
    assert type(model[0]) is nn.Linear
    model.dim = 4
    LoRAMoETuner("0", rank=2, options={"gate_input": "hidden"}).apply(model)
    with pytest.raises(UserError, match=r"needs states \[B T D\] from the tuned module, got Tensor"):
        model(torch.randn(3, 4))
