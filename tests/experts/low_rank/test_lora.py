import copy

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank.lora import LoRA, LoRATuner
from mmunify.registry import TUNERS


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))


def test_names_shapes_and_initialisation():
    tuned = model()
    assert TUNERS.build({"name": "lora", "match": ["0", "2"], "rank": 3}).apply(tuned) == ["0", "2"]
    shapes = {name: tuple(p.shape) for name, p in tuned.named_parameters() if "low_rank" in name}
    assert shapes == {
        "0.low_rank.a": (3, 6),
        "0.low_rank.b": (8, 3),
        "2.low_rank.a": (3, 8),
        "2.low_rank.b": (4, 3),
    }
    assert tuned[0].low_rank.b.abs().max() == 0
    assert 0 < tuned[0].low_rank.a.abs().max() <= 6**-0.5


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 4.0), (True, 8.0)])
def test_term_is_scaled_b_a_x(rslora, scaling):
    tuned = model()
    LoRATuner("0", rank=4, alpha=16, rslora=rslora).apply(tuned)
    term = tuned[0].low_rank
    nn.init.normal_(term.b)
    x = torch.randn(2, 5, 6)
    expected = nn.functional.linear(x, tuned[0].weight + scaling * term.b @ term.a, tuned[0].bias)
    torch.testing.assert_close(tuned[0](x), expected, rtol=1e-4, atol=1e-4)


def test_dropout_only_while_training():
    torch.manual_seed(0)
    term = LoRA(50, 6, rank=4, scaling=1.0, dropout=0.5)
    nn.init.normal_(term.b)
    x = torch.randn(3, 50)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    torch.manual_seed(1)
    torch.testing.assert_close(term(x), dropped @ term.a.T @ term.b.T)
    assert torch.equal(term.eval()(x), term(x))


def test_only_low_rank_parameters_of_a_tiny_llama_train():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=32, tie_word_embeddings=True, **sizes))
    LoRATuner(["*.mlp.*_proj", "*.self_attn.[qv]_proj"], rank=4).apply(llama)
    for name, parameter in llama.named_parameters():
        parameter.requires_grad_(".low_rank." in name)
    before = copy.deepcopy(llama.state_dict())
    learned = [p for p in llama.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=0.02)
    ids = torch.randint(32, (2, 8))
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(llama(ids, labels=ids).loss)
        losses[-1].backward()
        optimizer.step()
    changed = {name for name, value in llama.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".low_rank." in name}
    assert len(learned) == 2 * 5 * 2
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_numbers_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LoRATuner("*", **settings)


def test_rank_above_the_matrix_names_it_and_changes_nothing():
    tuned = model()
    with pytest.raises(UserError, match=r"rank 5 is above 4, the smaller side of 2 \(8 -> 4\)"):
        LoRATuner("*", rank=5).apply(tuned)
    assert not any("low_rank" in name for name, _ in tuned.named_parameters())
