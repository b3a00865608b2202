import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.train.layers import LayerOptions, backbone_layers, learning_layers, transformer_layers
from mmunify.train.learns import apply_learns
from tests.train.small import SmallTalk, small_recipe

ROOT = Path(__file__).parents[2]

MOE = {
    "name": "lora_moe",
    "match": "*.mlp.*_proj",
    "rank": 2,
    "num_experts": 2,
    "balance": "cv_squared",
    "balance_weight": 0.1,
    "dropout": 0.1,
}


@pytest.fixture
def mixed(nodes):
    """A model with gates that need to know every token's task."""
    return learning(compose(**nodes, tuners=[MOE]))


def learning(model):
    """Adapters, heads and experts learn; the experts' terms are not zero."""
    apply_learns(model, ["adapters.*", "heads.*", "*.low_rank.*"])
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("low_rank.b"):
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def test_layers_are_found(mixed):
    assert [type(layer).__name__ for layer in backbone_layers(mixed)] == ["LlamaDecoderLayer"] * 2
    assert len(transformer_layers(mixed.encoders)) == 2
    assert list(learning_layers(mixed)) == backbone_layers(mixed)  # the tower is frozen
    mixed.encoders.requires_grad_(True)
    assert len(list(learning_layers(mixed))) == 4
    assert transformer_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []


def gradients(model, batches, options):
    """Two forwards before the backward, as recomputation must not mix up their tokens."""
    options.apply(model)
    torch.manual_seed(1)
    reports = [model(batch) for batch in batches]
    sum(report.total for report in reports).backward()
    options.undo(model)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def check_gradients(model, make_sample, options):
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    samples = [make_sample("one"), make_sample("three", pictures=2), make_sample("blind", pictures=0)]
    batches = [processor([samples[0], samples[2]]), processor(samples[1:])]
    names = [name for name, _ in model.named_parameters()]
    before = gradients(model, batches, LayerOptions())
    after = gradients(model, batches, options)
    assert any(".gate" in name for name in before)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == names
    assert "forward" not in vars(backbone_layers(model)[0])


def test_recomputed_gradients_stay(mixed, make_sample):
    """With gates, whose balance loss depends on the tokens, and dropout."""
    check_gradients(mixed, make_sample, LayerOptions(recompute=True))


@pytest.mark.slow
def test_compiled_gradients_stay(llama_folder, tmp_path):
    """In a process of its own: the checks of shapes that tests switch on can't be compiled."""
    code = f"from tests.train.test_layers import check_compiled; check_compiled({str(llama_folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def check_compiled(llama):
    talks = {"one": 1, "three": 2, "blind": 0}
    tuner = {**MOE, "dropout": 0.0}  # compiled dropout draws other numbers
    for options in (LayerOptions(compile="eager"), LayerOptions(recompute=True, compile="aot_eager")):
        recipe = small_recipe(llama)
        recipe.model.tuners = [tuner]
        torch._dynamo.reset()
        check_gradients(learning(recipe.build()), lambda name, pictures=1: SmallTalk()[talks[name]], options)


def test_recomputation_keeps_less(mixed, make_sample):
    """Inside a layer nothing is kept: only what goes into it."""
    batch = Processor(mixed.spec(), mixed.backbone.tokenizer, mixed.tokens)([make_sample("one")])
    kept = {}
    for recompute in (False, True):
        LayerOptions(recompute=recompute).apply(mixed)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            mixed(batch)
        kept[recompute] = sum(sizes)
        LayerOptions().undo(mixed)
    assert kept[True] < 0.7 * kept[False]
