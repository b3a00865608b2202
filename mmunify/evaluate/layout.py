"""Layout metrics of NSR-1K as LayoutGPT (Feng et al. 2023, arXiv 2305.15393) scores them: counting and spatial rules.

Quirks of the public evaluation are part of the metric and kept: its article stripping removes *characters*
("apple" becomes "pple"), names match when either contains the other, and near-diagonal pairs have no direction.
"""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmunify.types import Box

LabelledBox = tuple[str, Box]


@dataclass(frozen=True, slots=True)
class CountScore:
    """Counting score of one layout. Comparison prompts have an accuracy alone."""

    accurate: bool
    precision: float | None = None
    recall: float | None = None
    iou: float | None = None


def _strip_articles(name: str) -> str:
    # strips character sets, not words, as the public evaluation does: without it published rows don't compare
    return name.lstrip("a ").lstrip("an ").lstrip("the ")


def count_categories(labels: Sequence[str], wanted: Sequence[str]) -> Counter[str]:
    """Boxes per category; a label that contains a wanted name, or is contained in it, counts as that one."""
    counts: Counter[str] = Counter()
    for label in labels:
        for name in wanted:
            bare = _strip_articles(label)
            if bare in name or name in bare:
                label = name
        counts[label] += 1
    return counts


def score_counts(labels: Sequence[str], truth: Sequence[tuple[str, int]]) -> CountScore:
    """Score the labels of a layout's boxes against the wanted number per category.

    Precision divides by all predicted boxes, recall by all wanted ones; accuracy wants every category exact.
    """
    found = count_categories(labels, [name for name, _ in truth])
    accurate = all(found[name] == number for name, number in truth)
    shared = sum(min(found[name], number) for name, number in truth)
    if shared == 0:
        return CountScore(accurate, 0.0, 0.0, 0.0)
    union = sum(max(found[name], number) for name, number in truth)
    wanted = sum(number for _, number in truth)
    return CountScore(accurate, shared / sum(found.values()), shared / wanted, shared / union)


def score_comparison(labels: Sequence[str], truth: Sequence[tuple[str, int]]) -> CountScore:
    """Score "more A than B" prompts: A's number exact and the sign of the difference right, or all equal."""
    (first, wanted), (second, other) = truth
    found = count_categories(labels, [first, second])
    if wanted == other == found[first] == found[second]:
        return CountScore(True)
    return CountScore(wanted == found[first] and (wanted - other) * (found[first] - found[second]) > 0)


def relation(first: Box, second: Box) -> str:
    """Where the first box lies, seen from the second: right, top, left, bottom (45 degree sectors) or diagonal."""
    dx = (first[0] + first[2] - second[0] - second[2]) / 2
    dy = (second[1] + second[3] - first[1] - first[3]) / 2
    distance, edge = math.hypot(dx, dy), math.sqrt(2) / 2
    if distance == 0:
        return "diagonal"
    sectors = {"right": dx, "top": dy, "left": -dx, "bottom": -dy}
    return next((name for name, along in sectors.items() if along / distance > edge), "diagonal")


def score_relation(boxes: Sequence[LabelledBox], first: str, second: str, wanted: str) -> bool | None:
    """Whether any pair of boxes of the two objects stands in the wanted relation; None = an object is missing.

    Objects are found by the closest label; boxes of zeros are placeholders and dropped. "next to" takes left or right.
    """
    real = [(label, box) for label, box in boxes if label is not None and any(box)]
    labels = [label for label, _ in real]
    close = [difflib.get_close_matches(name, labels)[:1] for name in (first, second)]
    if not all(close):
        return None
    ours, others = ([box for label, box in real if label in names] for names in close)
    found = {relation(a, b) for a in ours for b in others}
    return wanted in found or (wanted == "next to" and bool(found & {"left", "right"}))


def xywh_to_xyxy(box: Sequence[float]) -> Box:
    """(x, y, width, height), as NSR-1K's ground truth is written, to corners."""
    x, y, width, height = box
    return x, y, x + width, y + height


def score_record(labels: Sequence[str], record: Mapping[str, object]) -> CountScore:
    """Score one layout against a record of NSR-1K's counting half (`num_object`, `sub-type`)."""
    truth = [(str(name), int(number)) for name, number in record["num_object"]]  # type: ignore[attr-defined]
    compare = record.get("sub-type") == "comparison"
    return score_comparison(labels, truth) if compare else score_counts(labels, truth)
