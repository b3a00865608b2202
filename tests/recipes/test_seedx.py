"""SEED-X in the digit world: the de-tokenizer's stages, then those of the model that predicts its features."""

import numpy as np
import pytest

from mmunify import train
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.infer.assistant import Assistant
from mmunify.recipe import load_recipe
from mmunify.types import Media, Text
from tests.heads.worlds import generate_along

TASKS = ("generate_image", "remove")
DATA = {
    "pretrain": "[{name: digit_world, tasks: [caption]}, {name: digit_world, size: 128, tasks: [caption]}, "
    "{name: digit_world, tasks: [generate_image]}]",
    "instruct": "[{name: digit_world, tasks: [remove, generate_image], outputs: [remove, generate_image]}]",
}
"""Without the recipe's batch sizes per source: so few steps are to see all of them."""


def _quick(*stages):
    sizes = [f"stages.{stage}.{key}" for stage in stages for key in ("steps=3", "batch_size=2", "num_workers=0")]
    return ["trainer.precision=32-true", *sizes]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    detokenizer, model = (tmp_path_factory.mktemp(name) for name in ("detokenizer", "model"))
    train(load_recipe("seedx/tiny_detokenizer", _quick("reconstruct", "edit")), detokenizer, progress=False)
    stages = tuple(DATA)
    mixed = [
        line for stage, data in DATA.items() for line in (f"stages.{stage}.mix=sample", f"stages.{stage}.data={data}")
    ]
    recipe = load_recipe("seedx/tiny_mllm", [*_quick(*stages), *mixed, f"stages.pretrain.start={detokenizer}"])
    assert recipe.check() == [] and recipe.notes == []
    return train(recipe, model, progress=False)


def test_large_scenes_become_tiles(bundle):
    processor = bundle.processor()
    small, large = (processor([DigitWorld("test", ["caption"], size=size)[0]]) for size in (64, 128))
    slots = [int(batch.media["image"].slots.sum()) for batch in (small, large)]
    assert slots == [2 * 64, 5 * 64]  # one tile and the whole; four tiles and the whole


@pytest.mark.parametrize("task", TASKS)
def test_it_answers_with_pictures(bundle, task, monkeypatch):
    sample = DigitWorld("test", [task], outputs=list(TASKS))[1]
    (written,) = generate_along(bundle.model, bundle.processor(), [sample], monkeypatch)
    assert {node: len(items) for node, items in written.predictions.items()} == {"image": 1}
    monkeypatch.setattr("mmunify.infer.assistant.generate", lambda *args, **options: [written])
    user = sample.turns[0].parts
    picture = next((part.source for part in user if isinstance(part, Media)), None)
    words = "".join(part.text for part in user if isinstance(part, Text))
    reply = Assistant.load(bundle).reply(words, image=picture)
    assert reply.problems == ()
    (drawn,) = reply.artifacts
    assert drawn.kind == "image" and drawn.data.shape == (64, 64, 3) and drawn.data.dtype == np.uint8
    assert (picture is not None) == (task == "remove")
