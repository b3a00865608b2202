"""Short answers."""

from mmunify.evaluate.metrics.question import QuestionProtocol
from mmunify.evaluate.protocol import Tools
from tests.evaluate.worlds import SAMPLES, answers, run


def score(speak):
    return QuestionProtocol()(answers("question", speak), Tools(run=run))["accuracy"]


def test_right_answers():
    assert score(lambda text: f" {text}. ").value == 1.0


def test_always_the_same_answer_scores_its_share():
    said = [answer.facts["answer"] for answer in answers("question")]
    assert score(lambda _: "yes").value == said.count("yes") / SAMPLES


def test_an_answer_inside_a_sentence_is_not_the_answer():
    assert score(lambda text: f"I think {text}").value == 0.0
