"""Layouts by counting, by relations and by place."""

import re

import pytest

from mmunify.evaluate.metrics.layout import LayoutProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run

NUMBERS = re.compile(r"\[([\d.]+),([\d.]+),([\d.]+),([\d.]+)\]")
BOX = re.compile(r"<box>.*?</box>")


def score(speak=lambda text: text, number=16):
    return LayoutProtocol()(answers("layout_to_image", speak, number), Tools(run=run))


def test_true_layouts():
    measures = score()
    for name in ("precision", "recall", "accuracy", "relation_accuracy", "placement"):
        assert measures[name].value == 1.0
    assert measures["read_back_digits"].value > 0.9


def test_a_box_too_many_costs_precision_alone():
    measures = score(lambda text: text + "<box>pink 11[0.1,0.1,0.2,0.2]</box>")
    assert measures["recall"].value == measures["accuracy"].value == 1.0
    assert 0.4 < measures["precision"].value < 0.9


def test_a_missing_box_costs_recall_and_accuracy():
    measures = score(lambda text: BOX.sub("", text, count=1) + "<box>pink 11[0.1,0.1,0.2,0.2]</box>")
    assert measures["accuracy"].value == 0.0
    assert 0.0 < measures["recall"].value < 0.8


def test_mirrored_boxes_keep_the_counts_and_lose_relations_and_places():
    def mirror(text):
        return NUMBERS.sub(
            lambda m: "[{2:.3f},{3:.3f},{0:.3f},{1:.3f}]".format(*(1 - float(x) for x in m.groups())), text
        )

    measures = score(mirror)
    assert measures["accuracy"].value == 1.0
    assert measures["relation_accuracy"].value == 0.0
    assert measures["placement"].value < 0.5


@pytest.mark.parametrize("text", ["", "Sure.", "<box>red 7[0.1,0.1,0.3,0.3]</box>"])
def test_without_a_call_there_is_no_layout(text):
    measures = score(lambda _: text, number=4)
    assert measures["precision"].value == measures["placement"].value == measures["read_back"].value == 0.0


def test_a_near_name_is_another_object():
    measures = score(lambda text: re.sub(r"(<box>\w+ )\d", r"\g<1>99", text), number=8)
    assert measures["recall"].value == 0.0
    assert measures["relation_accuracy"].value == 0.0
