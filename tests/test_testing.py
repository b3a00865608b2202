import pytest
import torch
from torch import nn

from mmunify.adapters.linear import LinearAdapter
from mmunify.detokenizers.pixel_decoder import PixelDecoder
from mmunify.encoders.clip import CLIPEncoder
from mmunify.parts import Adapter
from mmunify.testing import (
    check_adapter,
    check_detokenizer,
    check_encoder,
    random_features,
    randomize,
    tiny_llama_folder,
)
from mmunify.types import Condition, Embeds, Layout

CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP |= {"image_size": 16, "patch_size": 8}


class Adaptable(Adapter):
    """A linear adapter with a switch for every promise that it can break."""

    def __init__(self, broken: str = "") -> None:
        super().__init__()
        self.broken, self.project = broken, nn.Linear(6, 8)
        if broken == "idle":
            self.unused = nn.Parameter(torch.zeros(3))

    def layout(self, layout: Layout) -> Layout:
        return Layout.of(layout.num_slots + (self.broken == "layout"))

    def forward(self, features, context):
        tokens = features.tokens
        if self.broken == "random":
            tokens = tokens + torch.rand(())
        if self.broken == "batch":
            tokens = tokens - tokens.mean(0)
        if self.broken == "mask":
            tokens = tokens + tokens.mean(1, keepdim=True)
        embeds = self.project(tokens)
        return Embeds(tokens=embeds * torch.inf if self.broken == "infinite" else embeds, mask=features.mask)


def test_a_sound_adapter_passes():
    check_adapter(Adaptable(), in_dim=6, out_dim=8)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("layout", r"tokens: shape \(2, 12, 8\), promised \(2, 13, 8\)"),
        ("infinite", "tokens: not finite"),
        ("random", "a second pass in eval mode changes the answer"),
        ("batch", "an item alone changes the answer"),
        ("idle", r"no gradient reaches 1 of 3 parameters: \['unused'\]"),
        ("mask", "noise in masked tokens changes the answer"),
    ],
)
def test_a_broken_promise_is_named(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_adapter(Adaptable(broken), in_dim=6, out_dim=8)


def test_adapters_get_what_they_need():
    adapter = LinearAdapter(6, 8)
    adapter.needs = frozenset({"pooled", "layers:-3"})
    features = random_features(6, (2, 3), needs=adapter.needs)
    assert features.pooled.shape == (2, 6)
    assert set(features.layers) == {-3}
    assert random_features(6, (2, 3)).pooled is None


def test_an_encoder_that_lies_about_its_width():
    encoder = CLIPEncoder(config=CLIP)
    check_encoder(encoder)
    encoder.out_dim = 17
    with pytest.raises(AssertionError, match=r"tokens: shape \(2, 4, 16\), promised \(2, 4, 17\)"):
        check_encoder(encoder)


def test_an_encoder_that_lies_about_its_grid():
    encoder = CLIPEncoder(config=CLIP)
    encoder._grid = (2, 3)
    with pytest.raises(AssertionError, match=r"promised \(2, 6, 16\)"):
        check_encoder(encoder)


def test_a_detokenizer_that_averages_its_loss(monkeypatch):
    decoder = PixelDecoder(6, size=16, grid=4, dim=16, depth=1)
    condition = Condition(states=torch.randn(3, 16, 6))
    check_detokenizer(decoder, condition)
    monkeypatch.setattr(decoder, "_distance", lambda pixels, target: (pixels - target).abs().mean())
    with pytest.raises(AssertionError, match="loss 'l1' item by item changes the answer"):
        check_detokenizer(decoder, condition)


def test_randomize_depends_on_the_seed_alone():
    first, second, other = (randomize(nn.Linear(4, 4), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)
    assert abs(float(randomize(nn.ModuleDict({"norm": nn.LayerNorm(400)})).norm.weight.detach().mean()) - 1) < 0.05


def test_tiny_llama_loads_with_its_tokenizer(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_llama_folder(tmp_path, words=["<image>", "red"])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = "a red <image>\n7é"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert len([i for i in ids if tokenizer.decode([i]) in ("<image>", "red")]) == 2
    assert model.config.vocab_size == len(tokenizer) == 4 + 256 + 2
    logits = model(torch.tensor([ids])).logits
    assert logits.std() > 0.1
