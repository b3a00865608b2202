"""Positions of a stage's data."""

import numpy as np
import pytest

from mmunify.commands.budget import stage_budget
from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.recipe import Recipe
from mmunify.train.loader import stage_samples
from tests.train.small import small_recipe


@pytest.fixture
def recipe(llama_folder):
    return small_recipe(llama_folder)


def with_stage(recipe, **changes):
    tree = recipe.to_dict()
    tree["stages"][0] |= changes
    return Recipe.from_dict(tree)


def test_it_measures_what_training_sees(recipe):
    model = recipe.build()
    budget = stage_budget(recipe, model, 0, 20)
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens, max_length=recipe.max_length)
    samples = stage_samples(recipe.stages[0], [recipe.seed, 0])
    batches = [processor([samples[k], samples[k + 1]]) for k in range(0, 20, 2)]
    valid = np.concatenate([batch.attention.valid.sum(1).numpy() for batch in batches])
    assert (budget["samples"], budget["unusable"]) == (20, 0)
    assert budget["mean"] == pytest.approx(valid.mean()) and budget["longest"] == valid.max()
    assert budget["p95"] == pytest.approx(np.percentile(valid, 95))
    assert budget["batch"] == max(batch.input_ids.numel() for batch in batches)
    assert budget["padding"] == pytest.approx(1 - valid.sum() / sum(batch.input_ids.numel() for batch in batches))
    learned = sum(int((batch.labels >= 0).sum()) for batch in batches)
    media = sum(int(batch.media["image"].slots.sum()) for batch in batches if batch.media)
    assert budget["learned"] == pytest.approx(learned / valid.sum())
    assert budget["media"] == pytest.approx(media / valid.sum())


def test_packing_leaves_less_padding(recipe):
    model = recipe.build()
    plain = with_stage(recipe, batch_size=10)
    packed = with_stage(recipe, batch_size=10, packing=True)
    assert stage_budget(packed, model, 0, 40)["padding"] < stage_budget(plain, model, 0, 40)["padding"]


def test_samples_that_are_too_long_are_counted_and_named(recipe):
    short = Recipe.from_dict({**recipe.to_dict(), "max_length": 40})
    budget = stage_budget(short, short.build(), 0, 20)
    assert 0 < budget["unusable"] < 20
    assert "more than max_length=40" in budget["problem"]
    assert budget["longest"] <= 40


def test_less_than_a_batch(recipe):
    assert stage_budget(with_stage(recipe, batch_size=16), recipe.build(), 0, 3)["batch"] > 0


def test_without_a_backbone_there_are_no_positions(recipe):
    model = recipe.build()
    model.backbone = None
    assert stage_budget(recipe, model, 0) is None


def test_data_that_cannot_be_opened(recipe):
    wrong = with_stage(recipe, data=[{"name": "jsonl", "path": "nowhere.jsonl"}])
    with pytest.raises(UserError, match="nowhere.jsonl"):
        stage_budget(wrong, recipe.build(), 0)
