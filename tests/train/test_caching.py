import logging

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.cache.feature_cache import FeatureCache
from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.recipe import Recipe
from mmunify.train.caching import cached_nodes, caching, fingerprint, open_cache
from mmunify.types import Features
from tests.train.small import small_recipe


@pytest.fixture
def recipe(llama_folder):
    return small_recipe(llama_folder)


@pytest.fixture
def world(recipe):
    """A model whose tower is frozen, and its processor."""
    model = recipe.build()
    model.encoders.requires_grad_(False)
    return model.train(), Processor(model.spec(), model.backbone.tokenizer, model.tokens)


def test_a_recipe_without_a_path_has_no_cache(recipe, tmp_path, world):
    assert open_cache(recipe) is None
    with caching(None, recipe, *world, "32-true"):
        assert world[0].on_features is None
    asked = Recipe.from_dict({**recipe.to_dict(), "cache": {"path": str(tmp_path / "new"), "limit": 2}})
    assert (open_cache(asked).folder, open_cache(asked).limit) == (tmp_path / "new", 2)
    (tmp_path / "file").touch()
    wrong = Recipe.from_dict({**recipe.to_dict(), "cache": {"path": str(tmp_path / "file" / "x")}})
    with pytest.raises(UserError, match="cannot be written"):
        open_cache(wrong)


def test_the_second_time_features_come_from_the_cache(recipe, tmp_path, world, make_sample):
    model, processor = world
    samples = [make_sample("first", 2), make_sample("b", 1)]
    calls = []
    model.encoders["image"].register_forward_hook(lambda *_: calls.append(1))
    live = model(processor(samples)).total
    cache = FeatureCache(tmp_path)
    with caching(cache, recipe, model, processor, "32-true"):
        assert torch.equal(model(processor(samples)).total, live)
    assert model.on_features is None and processor.encoder.caches == {}
    assert cache.entries()[0].num_items == 3 and cache.entries()[0].about["node"] == "image"
    del calls[:]
    with caching(cache, recipe, model, processor, "32-true"):
        batch = processor(samples)
        assert batch.media["image"].values is None
        assert torch.equal(model(batch).total, live)
        mixed = processor([samples[0], make_sample("new", 1)]).media["image"]
        assert mixed.features is None and len(mixed.values) == len(mixed.keys) == 3
    assert calls == []


def test_cached_gradients_are_the_live_ones(recipe, tmp_path, world, make_sample):
    model, processor = world
    samples = [make_sample("first", 2), make_sample("b", 1)]
    cache, found = FeatureCache(tmp_path), []
    for _ in range(2):
        with caching(cache, recipe, model, processor, "32-true"):
            model.zero_grad()
            model(processor(samples)).total.backward()
            found.append([p.grad.clone() for p in model.adapters.parameters()])
    assert all(torch.equal(live, cached) for live, cached in zip(*found, strict=True))


def test_other_weights_layers_kinds_and_precisions_never_hit(recipe):
    model = recipe.build()
    encoder, node = model.encoders["image"], recipe.model.encoders["image"]
    first = fingerprint(encoder, "image", node, "32-true")
    assert first == fingerprint(recipe.build().encoders["image"], "image", dict(node), "32-true")
    others = [
        fingerprint(encoder, "image", {**node, "layer": -1}, "32-true"),
        fingerprint(encoder, "picture", node, "32-true"),
        fingerprint(encoder, "image", node, "bf16-mixed"),
        fingerprint(encoder.to(torch.bfloat16), "image", node, "32-true"),
    ]
    encoder.layers = [0]
    others.append(fingerprint(encoder, "image", node, "32-true"))
    encoder.train(not encoder.training)
    assert fingerprint(encoder, "image", node, "32-true") == others[-1]
    with torch.no_grad():
        next(encoder.parameters()).flatten()[0] += 1
    others.append(fingerprint(encoder, "image", node, "32-true"))
    assert len({first, *others}) == 7


def test_which_encoders_are_cached(recipe, nodes):
    model = recipe.build()
    assert cached_nodes(model) == [], "it learns"
    model.encoders.requires_grad_(False)
    assert cached_nodes(model) == ["image"]
    nodes["encoders"]["region"] = {"name": "region", "from": "image", "dim": 8, "mask_size": 4}
    nodes["encoders"]["patches"] = {"name": "patch_linear", "kind": "image"}
    several = compose(**nodes)
    several.encoders.requires_grad_(False)
    assert cached_nodes(several) == ["image"], "a region depends on its picture, and patch_linear has no weights"


def test_an_encoder_whose_pixels_are_drawn_is_not_cached(nodes):
    nodes["detokenizers"] = {
        "image": {"name": "pixel_decoder", "from": "encoders.image", "size": 16, "grid": 4, "dim": 16}
    }
    model = compose(**nodes)
    model.encoders.requires_grad_(False)
    assert cached_nodes(model) == []
    model.detokenizers.requires_grad_(False)
    assert cached_nodes(model) == ["image"]


def test_a_full_disk_ends_the_writing_and_not_the_run(recipe, tmp_path, world, make_sample, monkeypatch, caplog):
    model, processor = world
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    cache = FeatureCache(tmp_path, shard_bytes=1)
    with caplog.at_level(logging.WARNING), caching(cache, recipe, model, processor, "32-true"):
        for name in ("a", "b"):
            assert model(processor([make_sample(name)])).total.isfinite()
    assert sum("takes nothing more in this stage: [Errno 28] No space" in text for text in caplog.messages) == 1
    assert cache.num_bytes == 0


def test_the_limit_is_kept_while_the_stage_runs(recipe, tmp_path, world, make_sample):
    model, processor = world
    cache = FeatureCache(tmp_path, limit=5000 / 2**30, shard_bytes=1)
    with caching(cache, recipe, model, processor, "32-true"):
        for number in range(8):
            model(processor([make_sample("x" * number)]))
            assert cache.num_bytes <= 5000
    assert 0 < cache.entries()[0].num_items < 8


def test_features_that_are_not_asked_for_are_not_stored(recipe, tmp_path, world, make_sample):
    model, processor = world
    cache = FeatureCache(tmp_path)
    with caching(cache, recipe, model, processor, "32-true"):
        batch = processor([make_sample("a")])
        model.on_features("other", batch.media["image"], Features(tokens=torch.zeros(1, 1, 1)))
    assert cache.num_bytes == 0
