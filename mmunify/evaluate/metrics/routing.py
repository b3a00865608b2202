"""Routing: does a reply call exactly the experts that it should?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS


@METRICS.register("routing")
class RoutingProtocol(Protocol):
    """`accuracy`: share of replies that open exactly the true task tokens and output slots, in order.

    `call_accuracy` is the same over the samples that need a call, `abstention` over those that need none.
    """

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Read from the text itself, so a mended call doesn't count as a right one."""
        hits = [(bool(answer.asked), answer.given == answer.asked) for answer in answers]
        return {
            "accuracy": rate([hit for _, hit in hits]),
            "call_accuracy": rate([hit for needed, hit in hits if needed]),
            "abstention": rate([hit for needed, hit in hits if not needed]),
        }
