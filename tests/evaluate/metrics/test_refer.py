"""Referring boxes."""

import pytest

from mmunify.evaluate.metrics.refer import ReferProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(speak):
    return ReferProtocol()(answers("refer", speak), Tools(run=run))


def test_true_boxes_lose_only_the_rounding_of_their_text():
    measures = score(lambda text: text)
    assert measures["precision_at_50"].value == 1.0
    assert 0.98 < measures["iou"].value < 1.0


@pytest.mark.parametrize(
    "text", ["", "the red 7", "<box>red 7[0.1,0.2,0.3]</box>", "<box>x[0.000,0.000,1.000,1.000]</box>"]
)
def test_no_box_a_broken_box_and_the_whole_picture_are_misses(text):
    assert score(lambda _: text)["precision_at_50"].value == 0.0


def test_only_the_first_box_counts():
    assert score(lambda text: f"<box>a[0.000,0.000,0.010,0.010]</box>{text}")["precision_at_50"].value == 0.0
    assert score(lambda text: f"{text}<box>a[0.000,0.000,0.010,0.010]</box>")["precision_at_50"].value == 1.0
