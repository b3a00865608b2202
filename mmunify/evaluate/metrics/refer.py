"""Referring boxes: P@0.5 as in Shikra (Chen et al. 2023, arXiv 2306.15195)."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import box_iou, is_located
from mmunify.evaluate.statistics import Measure, mean, rate
from mmunify.registry import METRICS
from mmunify.types import Box


@METRICS.register("refer")
class ReferProtocol(Protocol):
    """`precision_at_50`: share of boxes with IoU > 0.5; `iou`: mean IoU. An answer without a box is wrong."""

    tasks = ("refer",)

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """The first box of an answer is its box."""
        pairs: list[tuple[Box | None, Box]] = [(_first_box(answer), answer.facts["box"]) for answer in answers]
        overlaps = [0.0 if box is None else box_iou(box, truth) for box, truth in pairs]
        return {"precision_at_50": rate([is_located(*pair) for pair in pairs]), "iou": mean(overlaps, tools.seed)}


def _first_box(answer: Answer) -> Box | None:
    return next((region.box for region in answer.reply.regions if region.box is not None), None)
