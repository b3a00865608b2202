"""Prompts, truths and baselines made from samples."""

import numpy as np
import pytest
import torch

from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.errors import DataError
from mmunify.evaluate.answers import AnswerReader, make_prompt, random_calls, true_calls
from mmunify.layers.target_frames import RegionTarget
from mmunify.tokens import DEFAULT_TOKENS, DIGIT_TASKS, TokenRegistry
from mmunify.types import (
    Layout,
    Media,
    ModelSpec,
    NodeSpec,
    Output,
    Preprocess,
    Run,
    Sample,
    SlotSpec,
    TaskCall,
    Text,
    Turn,
)
from tests.evaluate.worlds import READER, answers, prompts, truth_of

SLOT = SlotSpec(opens="<img>", closes="</img>", layout=Layout.of(4))
SLOTTED = ModelSpec(outputs={"image": NodeSpec(kind="image", slot=SLOT, preprocess=None)})


def test_a_prompt_ends_with_the_user_and_hides_the_rest():
    prompt = prompts("segment")[0]
    assert prompt.sample.turns[-1].role == "user"
    assert prompt.sample.task == "" and dict(prompt.sample.facts) == {}
    assert prompt.truth.role == "assistant"
    assert prompt.extent == (64, 64)


def test_dialogues_are_cut_before_every_turn_in_turn():
    whole = prompts("dialogue", 1)[0].whole
    number = sum(turn.role == "assistant" for turn in whole.turns)
    cuts = [len(make_prompt(whole, choice).sample.turns) for choice in range(number + 1)]
    assert cuts == [*range(1, 2 * number, 2), 1]


def test_a_sample_without_an_answer_is_refused():
    sample = Sample(turns=(Turn(role="user", parts=(Text(text="Hi"),)),), id="lonely")
    with pytest.raises(DataError, match="'lonely' has no assistant turn"):
        make_prompt(sample)


@pytest.mark.parametrize("task", ["caption", "question"])
def test_the_truth_of_a_text_task_is_its_answer(task):
    for answer in answers(task):
        assert answer.truth.text == answer.facts["answer"]
        assert answer.asked == answer.given == ()


@pytest.mark.parametrize("task", DIGIT_TASKS)
def test_the_truth_of_a_call_task_is_its_call(task):
    for answer in answers(task):
        (call,), wanted = answer.truth.calls, answer.facts["call"]
        assert (call.task, call.instruction) == (wanted.task, wanted.instruction)
        for ours, theirs in zip(call.regions, wanted.regions, strict=True):
            assert ours.box == pytest.approx(theirs.box, abs=5.01e-4)
        assert answer.asked == (task,)


def test_given_tasks_are_read_from_the_text_itself():
    prompt = prompts("segment")[0]
    text = "<remove>the red 7</remove><segment>it"
    assert READER.read(prompt, text).given == ("remove", "segment")
    assert READER.read(prompt, "no tags, <slot> and <unknown>").given == ()


def test_a_head_with_slots_is_asked_for_slots_not_for_a_call():
    prompt = prompts("generate_image")[0]
    slotted = AnswerReader(tokens=READER.tokens, spec=SLOTTED)
    assert truth_of(prompt).endswith("</generate_image>")
    assert slotted.write(prompt.truth, prompt.extent).endswith("<img></img>")
    assert slotted.read(prompt, "Sure. <img></img>").asked == ("image",)
    assert slotted.read(prompt, "<generate_image>x</generate_image>").given == ("generate_image",)


def test_a_task_without_tokens_cannot_be_written():
    small = AnswerReader(tokens=TokenRegistry(tasks=("edit",)))
    assert small.can_write(prompts("edit")[0])
    assert small.can_write(prompts("caption")[0])
    assert not small.can_write(prompts("segment")[0])
    assert not small.can_write(prompts("generate_image")[0])


def test_boxes_are_read_in_the_frame_of_the_original_picture():
    picture = np.zeros((32, 64, 3), np.uint8)
    turns = (
        Turn(role="user", parts=(Media(kind="image", source=picture), Text(text="Where?"))),
        Turn(role="assistant", parts=(Text(text="<box>it[0.250,0.250,0.500,0.750]</box>"),)),
    )
    answer = READER.read(make_prompt(Sample(turns=turns, id="wide")), "<box>it[0.000,0.250,1.000,0.500]</box>")
    assert answer.truth.regions[0].box == pytest.approx((0.25, 0.0, 0.5, 1.0))
    assert answer.reply.regions[0].box == pytest.approx((0.0, 0.0, 1.0, 0.5))


def test_outputs_without_a_call_are_left_out():
    turn = Turn(role="assistant", parts=(Text(text="Here."), Output(kind="image")))
    assert READER.write(turn, None) == "Here."
    call = TaskCall(task="edit", instruction="flip it")
    turn = Turn(role="assistant", parts=(Output(kind="image", call=call),))
    assert READER.write(turn, None) == "<edit>flip it</edit>"


def test_true_calls_replace_whatever_was_said():
    silent = answers("remove", speak=lambda text: "")
    for answer in true_calls(silent, READER):
        assert answer.reply.calls == answer.truth.calls
        assert answer.given == ("remove",)


def test_random_calls_are_other_samples_calls_at_other_places():
    said = answers("segment", number=12)
    made = random_calls(said, READER, seed=1)
    assert made != random_calls(said, READER, seed=2)
    sizes = {call.instruction: call.regions[0].box for answer in said for call in answer.truth.calls}
    for before, after in zip(said, made, strict=True):
        (call,) = after.reply.calls
        x0, y0, x1, y1 = call.regions[0].box
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert call.regions[0].box != before.truth.calls[0].regions[0].box
        assert call.instruction in sizes


def test_masks_and_boxes_of_heads_are_read_and_written():
    slots = {
        name: SlotSpec(layout=Layout(runs=(Run(token=token),))) for name, token in (("mask", "[SEG]"), ("box", "<at>"))
    }
    frames = {name: RegionTarget(kind=name, frame=Preprocess(size=(8, 8))) for name in slots}
    outputs = {name: NodeSpec(kind=name, slot=slots[name], preprocess=frames[name]) for name in slots}
    reader = AnswerReader(tokens=DEFAULT_TOKENS.with_signals(["[SEG]", "<at>"]), spec=ModelSpec(outputs=outputs))
    prompts = [make_prompt(DigitWorld("test", [task])[0]) for task in ("segment", "refer")]
    assert all(reader.can_write(prompt) for prompt in prompts)
    assert reader.write(prompts[0].truth, prompts[0].extent).endswith("[SEG]")
    assert reader.write(prompts[1].truth, prompts[1].extent) == "<at>"
    answer = reader.read(prompts[1], "<at>", {"box": torch.tensor([[0.25, 0.25, 0.5, 0.75]])})
    assert [region.box for region in answer.reply.regions] == [(0.25, 0.25, 0.5, 0.75)]
    assert answer.asked == answer.given == ("box",) and not answer.reply.problems
    in_words = AnswerReader(tokens=DEFAULT_TOKENS)
    assert in_words.write(prompts[1].truth, prompts[1].extent).startswith("<box>")
    assert in_words.read(prompts[0], "no").asked == ("segment",)
