"""Captions must be right as a whole."""

from mmunify.evaluate.metrics.caption import CaptionProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import answers, run


def score(speak):
    return CaptionProtocol()(answers("caption", speak), Tools(run=run))["exact_match"].value


def test_the_truth_scores_one_whatever_its_case_and_full_stop():
    assert score(lambda text: text.upper() + ".") == 1.0


def test_one_wrong_word_makes_a_caption_wrong():
    assert score(lambda text: text.replace(text.split()[1], "pink", 1)) == 0.0
    assert score(lambda text: f"{text} and a red 1") == 0.0


def test_markup_beside_the_words_is_not_part_of_the_caption():
    assert score(lambda text: f"{text} <edit>flip it</edit>") == 1.0
