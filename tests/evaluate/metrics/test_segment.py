"""Masks through the expert."""

import pytest

from mmunify.evaluate.metrics.segment import SegmentProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(speak=lambda text: text, experts=run):
    return SegmentProtocol()(answers("segment", speak), Tools(run=experts))


def test_true_masks():
    assert score()["ciou"].value == pytest.approx(1.0)
    assert score()["giou"].value > 0.9999


def test_no_call_and_a_failing_expert_give_empty_masks():
    assert score(lambda _: "the red 7")["ciou"].value == 0.0
    assert score(experts=lambda answer: [])["giou"].value == 0.0


def test_a_box_is_not_a_mask():
    loose = score(lambda text: text.replace("the ", "some "))
    assert 0.2 < loose["ciou"].value < 0.9


def test_a_picture_is_no_mask():
    painted = [artifact for answer in answers("remove") for artifact in run(answer)]
    assert score(experts=lambda answer: painted[:1])["ciou"].value == 0.0
