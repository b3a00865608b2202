"""Exactly the right experts, in order."""

import pytest

from mmunify.evaluate.metrics.routing import RoutingProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(tasks, speak=lambda text: text):
    return RoutingProtocol()([a for task in tasks for a in answers(task, speak, 6)], Tools(run=run))


def test_calls_and_abstention_are_counted_apart():
    measures = score(["caption", "segment", "edit"], speak=lambda _: "")
    assert (measures["accuracy"].value, measures["call_accuracy"].value, measures["abstention"].value) == (6 / 18, 0, 1)
    assert (measures["accuracy"].n, measures["call_accuracy"].n, measures["abstention"].n) == (18, 12, 6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "<edit>flip it</edit>",
        lambda text: text + text,
        lambda text: text.replace("segment", "remove"),
        lambda text: text.replace("segment", "segments"),
    ],
)
def test_one_call_too_many_or_another_is_wrong(spoil):
    assert score(["segment"], spoil)["accuracy"].value == 0.0


def test_words_and_boxes_dont_matter():
    assert score(["segment"], lambda text: "Well. " + text.split("<box>")[0])["accuracy"].value == 1.0
