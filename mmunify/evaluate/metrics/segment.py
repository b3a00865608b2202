"""Referring segmentation through the expert: cIoU and gIoU as in LISA (Lai et al. 2023, arXiv 2308.00692)."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import cumulative_iou, general_iou, mask_overlap
from mmunify.evaluate.statistics import Measure
from mmunify.registry import METRICS


@METRICS.register("segment")
class SegmentProtocol(Protocol):
    """`ciou` and `giou` of the masks that the expert makes of the calls. No mask counts as an empty one."""

    tasks = ("segment",)
    by_calls = True

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """The true masks are those of the digits' ink, not of their boxes."""
        overlaps = [mask_overlap(tools.last(answer, "mask"), answer.facts["mask"]) for answer in answers]
        return {"ciou": cumulative_iou(overlaps, tools.seed), "giou": general_iou(overlaps, tools.seed)}
