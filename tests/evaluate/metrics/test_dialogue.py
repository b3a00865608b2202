"""Turns of dialogues."""

from dataclasses import replace

import pytest

from mmunify.evaluate.metrics.dialogue import DialogueProtocol
from mmunify.evaluate.protocol import Tools
from mmunify.evaluate.run import run_protocols
from tests.evaluate.worlds import answers, bench, prompts, run

NUMBER = 60


def score(speak=lambda text: text, **changes):
    said = [replace(answer, **changes) for answer in answers("dialogue", speak, NUMBER)]
    return {name: measure.value for name, measure in DialogueProtocol()(said, Tools(run=run)).items()}


def test_the_truth_is_right_in_every_turn():
    measures = DialogueProtocol()(answers("dialogue", number=NUMBER), Tools(run=run))
    assert {measure.value for measure in measures.values()} == {1.0}
    assert measures["turn_accuracy"].n == NUMBER
    kinds = [measures[f"turn_accuracy_{kind}"].n for kind in ("words", "boxes", "calls")]
    assert sum(kinds) == measures["turn_accuracy_first"].n + measures["turn_accuracy_later"].n == NUMBER
    assert min(kinds) > 0


@pytest.mark.parametrize("said", ["", "no idea", "<segment>x</segment><box>x[0.000,0.000,1.000,1.000]</box>"])
def test_anything_else_is_wrong(said):
    assert set(score(lambda _: said).values()) == {0.0}


def test_words_around_a_call_are_free_and_words_alone_are_not():
    found = score(lambda text: f"Well then. {text}")
    assert found["turn_accuracy_calls"] == 1.0
    assert found["turn_accuracy_words"] == found["turn_accuracy_boxes"] == 0.0


def test_a_box_may_be_a_little_off_but_not_elsewhere():
    assert score(lambda text: text.replace("0.5", "0.51"))["turn_accuracy_boxes"] == 1.0
    assert score(lambda text: text.replace("[0.", "[0.99", 1))["turn_accuracy_boxes"] == 0.0


def test_labels_instructions_and_the_number_of_calls_count():
    assert score(lambda text: text.replace("blue", "red"))["turn_accuracy_boxes"] < 1.0
    assert score(lambda text: text + text)["turn_accuracy_calls"] == 0.0
    assert score(lambda text: text.replace("</", " more</", 1))["turn_accuracy_calls"] == 0.0


def test_a_turn_that_was_cut_off_is_wrong():
    assert set(score(finished=False).values()) == {0.0}


def test_the_history_is_the_true_one_and_its_tasks_are_hidden():
    later = [p for p in prompts("dialogue", NUMBER) if any(turn.role == "assistant" for turn in p.sample.turns)]
    assert later
    for prompt in later:
        assert [turn.parts for turn in prompt.sample.turns] == [
            turn.parts for turn in prompt.whole.turns[: len(prompt.sample.turns)]
        ]
        assert {turn.task for turn in prompt.sample.turns} == {""}


def test_it_reads_dialogues_and_counts_in_the_evaluation():
    results = run_protocols(bench(lambda text, *_: text, ["dialogue"]), ["dialogue"], 8)
    assert results["dialogue"]["turn_accuracy"].value == 1.0
