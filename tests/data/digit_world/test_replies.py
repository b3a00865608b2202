"""Answers as outputs, or as the same in words."""

import re

import numpy as np
import pytest

from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.data.digit_world.replies import OUTPUTS
from mmunify.data.processor import Processor
from mmunify.errors import DataError
from mmunify.recipe import load_recipe
from mmunify.tokens import format_region
from mmunify.types import Output

ALL = ["generate_image", "segment", "refer", "edit", "remove", "recolor", "replace", "layout_to_image"]


@pytest.fixture(scope="module")
def processor():
    model = load_recipe("tiny/unifiedmllm").build()
    return Processor(model.spec(), model.backbone.tokenizer, model.tokens)


@pytest.mark.parametrize("turns", [1, 3])
def test_a_model_without_heads_for_them_learns_the_same_words(processor, turns):
    in_words, usual, everything = (DigitWorld(turns=turns, outputs=outputs) for outputs in ([], list(OUTPUTS), ALL))
    for index in range(12):
        said = processor.encode(in_words[index])
        for other in (usual, everything):
            made = processor.encode(other[index])
            assert (made.input_ids, made.labels) == (said.input_ids, said.labels) and not made.outputs


def outputs_of(sample):
    return [part for turn in sample.turns for part in turn.parts if isinstance(part, Output)]


def test_masks_and_boxes_are_those_of_the_facts():
    (mask,) = outputs_of(DigitWorld(tasks=["segment"])[3])
    facts = DigitWorld(tasks=["segment"])[3].facts
    assert mask.kind == "mask" and np.array_equal(mask.target, facts["mask"]) and mask.condition == 0
    assert mask.call == facts["call"] and mask.region is None
    sample = DigitWorld(tasks=["refer"])[3]
    (box,) = outputs_of(sample)
    assert (box.kind, box.target, box.condition) == ("box", sample.facts["box"], 0)
    assert box.region.box == box.target and box.call is None


def test_a_boxed_output_follows_its_box_in_words():
    plain, boxed = (DigitWorld(tasks=["segment"], boxed=names)[3] for names in ([], ["segment"]))
    (mask,) = outputs_of(boxed)
    said, answer = boxed.turns[-1].parts
    assert answer is mask and np.array_equal(mask.target, outputs_of(plain)[0].target)
    assert said.text.endswith(format_region(boxed.facts["call"].regions[0]))
    drawn = DigitWorld(tasks=["generate_image"], boxed=["generate_image"])[0]
    planned = [f"<box>{item['name']}[" for item in drawn.facts["plan"]]
    assert all(name in drawn.turns[-1].parts[0].text for name in planned)
    changed = DigitWorld(tasks=["edit"], outputs=["edit"], boxed=["edit"])[0].turns[-1].parts  # of no digit
    assert not any("<box>" in part.text for part in changed[:-1])
    with pytest.raises(DataError, match="no output of digit-world task 'caption'"):
        DigitWorld(boxed=["caption"])


@pytest.mark.parametrize("task", ["remove", "recolor", "replace"])
def test_a_boxed_edit_says_what_changes_and_then_what_becomes_of_it(task):
    for index in range(10):
        sample = DigitWorld(tasks=[task], outputs=[task], boxed=[task])[index]
        before, *after = re.findall(r"<box>(\w+) (\d)\[", sample.turns[-1].parts[0].text)
        call = sample.facts["call"]
        wanted = {"remove": [], "recolor": [(call.instruction, before[1])], "replace": [(before[0], call.instruction)]}
        assert f"{before[0]} {before[1]}" == call.regions[0].label and after == wanted[task]


def test_edits_start_from_the_picture_that_was_shown():
    sample = DigitWorld(tasks=["remove"], outputs=["remove"])[0]
    (drawn,) = outputs_of(sample)
    assert drawn.kind == "image" and drawn.condition == 0 and np.array_equal(drawn.target, sample.facts["target"])
    (asked,) = outputs_of(DigitWorld(tasks=["generate_image"])[0])
    assert asked.condition is None


def test_a_dialogue_counts_its_pictures():
    world = DigitWorld(tasks=["dialogue"], outputs=ALL)
    numbers = [part.condition for index in range(40) for part in outputs_of(world[index])]
    assert {0, 1} <= set(numbers)


def test_tasks_without_outputs_are_refused():
    with pytest.raises(DataError, match="no output of digit-world task 'segmnt'; did you mean 'segment'"):
        DigitWorld(outputs=["segmnt"])
    with pytest.raises(DataError, match="'question'"):
        DigitWorld(outputs=["question"])


def test_boxes_of_location_tokens_are_chosen_in_the_recipe():
    recipe = load_recipe("tiny/unifiedmllm", ["tokens.bins=16"])
    model = recipe.build()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    sample = DigitWorld(tasks=["refer"])[0]
    written = model.backbone.tokenizer.decode(processor.encode(sample).input_ids)
    assert "<box_start>" in written and "<loc-" in written and "[0." not in written
    calls = DigitWorld(tasks=["remove"], outputs=["remove"])[0]
    assert "<loc-" in model.backbone.tokenizer.decode(processor.encode(calls).input_ids)
    assert load_recipe("tiny/unifiedmllm", ["tokens.bins=-1"]).check()[0].path == "tokens.bins"
