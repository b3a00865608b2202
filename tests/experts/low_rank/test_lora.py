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


def tiny_llama(cls="LlamaModel"):
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return getattr(transformers, cls)(transformers.LlamaConfig(vocab_size=32, **sizes)).double().eval()


def shake(module):
    for name, parameter in module.named_parameters():
        if name.endswith(("low_rank.b", "lora_B.default.weight")):
            nn.init.normal_(parameter)
    return module


IDS = torch.randint(32, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_reads_what_is_written(tmp_path, rslora):
    import peft

    causal = tiny_llama("LlamaForCausalLM")
    tuner = LoRATuner(["*.self_attn.[qv]_proj", "*.1.mlp.*_proj"], rank=3, alpha=5, rslora=rslora)
    tuner.apply(causal.model)
    shake(causal)
    folder = tuner.save(causal.model, tmp_path / "adapter", prefix="model.", base="tiny")
    theirs = peft.PeftModel.from_pretrained(tiny_llama("LlamaForCausalLM"), folder).eval()
    count = sum("lora_A" in name for name, _ in theirs.named_parameters())
    assert count == 2 * 2 + 3
    torch.testing.assert_close(theirs(IDS).logits, causal(IDS).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_writes_is_read(tmp_path, rslora):
    import peft

    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "down_proj"],
        use_rslora=rslora,
        rank_pattern={"layers.1.mlp.down_proj": 2},
        alpha_pattern={"q_proj": 9},
    )
    theirs = shake(peft.get_peft_model(tiny_llama("LlamaForCausalLM"), config).double().eval())
    theirs.save_pretrained(tmp_path / "adapter")
    ours = tiny_llama()
    names = TUNERS.build({"name": "lora", "match": "*", "path": str(tmp_path / "adapter")}).apply(ours)
    assert names == [f"layers.{i}.{name}" for i in range(2) for name in ("self_attn.q_proj", "mlp.down_proj")]
    assert ours.layers[1].mlp.down_proj.low_rank.a.shape == (2, 24)
    wanted = theirs.base_model.model.model(IDS).last_hidden_state
    torch.testing.assert_close(ours(IDS).last_hidden_state, wanted, rtol=0, atol=1e-10)
    again = LoRATuner("*").save(ours, tmp_path / "again", prefix="model.")
    back = peft.PeftModel.from_pretrained(tiny_llama("LlamaForCausalLM"), again).double().eval()
    torch.testing.assert_close(back(IDS).logits, theirs(IDS).logits, rtol=0, atol=1e-10)


def test_an_adapter_of_another_shape_names_the_module_and_the_numbers(tmp_path):
    small = nn.ModuleDict({"net": nn.Sequential(nn.Linear(6, 8))})
    tuner = LoRATuner("*", rank=2)
    tuner.apply(small)
    path = str(tuner.save(small, tmp_path / "adapter"))
    wide = nn.ModuleDict({"net": nn.Sequential(nn.Linear(6, 9))})
    with pytest.raises(UserError, match=r"lora_B of net.0 has shape \(8, 2\), but the module needs \(9, 2\)"):
        LoRATuner("*", path=path).apply(wide)
    assert type(wide["net"][0]) is nn.Linear
    with pytest.raises(UserError, match="its 1 modules are not those of this model"):
        LoRATuner("*", path=path).apply(nn.ModuleDict({"other": nn.Linear(6, 8)}))
    two = nn.ModuleDict({"net": nn.Sequential(nn.Linear(6, 8)), "head": nn.Linear(8, 6)})
    with pytest.raises(UserError, match="match 'head' names none of the 1 linears of adapter"):
        LoRATuner("head", path=path).apply(two)
    with pytest.raises(UserError, match="Linear has no LoRA term to save"):
        tuner.save(nn.Linear(2, 2), tmp_path)


def test_merging_goes_through_the_tuner():
    tuned, tuner = model(), LoRATuner("*", rank=3)
    tuner.apply(tuned)
    shake(tuned)
    x = torch.randn(2, 6)
    before = tuned(x)
    assert tuner.merge(tuned) == tuner.unmerge(tuned) == ["0", "2"]
    torch.testing.assert_close(tuned(x), before, rtol=1e-4, atol=1e-4)
