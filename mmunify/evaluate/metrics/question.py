"""Questions: accuracy of short answers."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import exact_match
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS


@METRICS.register("question")
class QuestionProtocol(Protocol):
    """`accuracy`: share of right answers, over all kinds of questions (colour, count, position, sum, ...)."""

    tasks = ("question",)

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Every question has exactly one short answer."""
        return {"accuracy": rate([exact_match(answer.reply.text, answer.truth.text) for answer in answers])}
