"""Captions: exact match with the one description of a scene."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import exact_match
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS


@METRICS.register("caption")
class CaptionProtocol(Protocol):
    """`exact_match`: share of captions equal to the truth: every digit, every colour, the right order."""

    tasks = ("caption",)

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Compare the words of every answer with the words of its truth."""
        return {"exact_match": rate([exact_match(answer.reply.text, answer.truth.text) for answer in answers])}
