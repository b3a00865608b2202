"""Masks by a head: the recipe trains in one stage, and the model says a box before the mask that it draws."""

import numpy as np

from mmunify import train
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.infer.assistant import Assistant
from mmunify.recipe import load_recipe
from mmunify.types import Media, Output, Text
from tests.heads.worlds import generate_along

QUICK = [
    "trainer.precision=32-true",
    "stages.instruct.mix=sample",
    *(f"stages.instruct.{key}" for key in ("steps=3", "batch_size=2", "num_workers=0")),
]


def test_it_trains_and_answers_with_a_mask(tmp_path, monkeypatch):
    recipe = load_recipe("lisa/tiny", QUICK)
    assert recipe.check() == [] and recipe.notes == []
    bundle = train(recipe, tmp_path, progress=False)
    sample = DigitWorld("test", ["segment"], boxed=["segment"])[1]
    (written,) = generate_along(bundle.model, bundle.processor(), [sample], monkeypatch)
    assert {node: len(items) for node, items in written.predictions.items()} == {"mask": 1}
    monkeypatch.setattr("mmunify.infer.assistant.generate", lambda *args, **options: [written])
    media, words = sample.turns[0].parts
    assert isinstance(media, Media) and isinstance(words, Text)
    reply = Assistant.load(bundle).reply(words.text, image=media.source)
    assert reply.problems == () and len(reply.regions) == 1
    (mask,) = reply.artifacts
    assert mask.kind == "mask" and mask.data.shape == (64, 64) and mask.data.dtype == np.bool_


def test_masks_follow_their_boxes_and_nothing_else_is_drawn():
    (stage,) = load_recipe("lisa/tiny").to_dict()["stages"]
    pointing, asking = stage["data"]
    assert pointing["boxed"] == pointing["outputs"] == ["segment"]
    assert asking["tasks"].keys().isdisjoint({"segment", "refer"})
    said, drawn = DigitWorld("test", ["segment"], boxed=["segment"])[0].turns[1].parts
    assert isinstance(said, Text) and "[" in said.text
    assert isinstance(drawn, Output) and drawn.kind == "mask"
