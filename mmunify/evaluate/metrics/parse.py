"""Parse rate: are replies well formed as they stand?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS


@METRICS.register("parse")
class ParseProtocol(Protocol):
    """`rate`: share of replies that ended by themselves and in which the parser found no problem to repair."""

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Any tag, box or number that needs mending counts against the reply."""
        return {"rate": rate([answer.finished and not answer.reply.problems for answer in answers])}
