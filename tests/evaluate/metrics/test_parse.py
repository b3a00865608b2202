"""Well-formed replies."""

from dataclasses import replace

import pytest

from mmunify.evaluate.metrics.parse import ParseProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(speak=lambda text: text, task="segment", finished=True):
    said = [replace(answer, finished=finished) for answer in answers(task, speak, 6)]
    return ParseProtocol()(said, Tools(run=run))["rate"].value


@pytest.mark.parametrize("task", ["caption", "refer", "layout_to_image", "dialogue"])
def test_the_truth_is_well_formed(task):
    assert score(task=task) == 1.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.removesuffix("</box>"),
        lambda text: text.replace("0.", "1.7", 1),
        lambda text: text.split("<box>")[0],
        lambda text: text + "</edit>",
    ],
)
def test_anything_that_needs_mending_counts(spoil):
    assert score(spoil) == 0.0


def test_a_reply_that_was_cut_off_counts_even_if_it_parses():
    assert score(finished=False) == 0.0
