"""Layouts from words: the calls' boxes by LayoutGPT's counting and spatial rules, and the pictures drawn from them."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.layout import CountScore, LabelledBox, score_counts, score_relation
from mmunify.evaluate.metrics._pictures import read_back
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import is_located
from mmunify.evaluate.statistics import Measure, mean, rate
from mmunify.registry import METRICS


@METRICS.register("layout")
class LayoutProtocol(Protocol):
    """Scores of layouts.

    `precision`, `recall`, `accuracy`: named boxes against the objects asked for (NSR-1K's counting rule);
    `relation_accuracy`: samples whose relations all hold (its spatial rule), over those that ask for relations;
    `placement`: share of the objects whose box has IoU > 0.5 with the place that was asked for;
    `read_back`, `read_back_digits`: what can be read in the picture that the expert draws.
    """

    tasks = ("layout_to_image",)
    by_calls = True

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """An answer without a call has no boxes and no picture."""
        layouts = [_boxes(answer) for answer in answers]
        wanted = [[item["name"] for item in answer.facts["plan"]] for answer in answers]
        counts = [_count(boxes, names) for boxes, names in zip(layouts, wanted, strict=True)]
        asked = [(boxes, answer.facts["relations"]) for boxes, answer in zip(layouts, answers, strict=True)]
        return {
            "precision": mean([score.precision or 0.0 for score in counts], tools.seed),
            "recall": mean([score.recall or 0.0 for score in counts], tools.seed),
            "accuracy": rate([score.accurate for score in counts]),
            "relation_accuracy": rate([_holds(boxes, relations) for boxes, relations in asked if relations]),
            "placement": mean([_placed(b, a) for b, a in zip(layouts, answers, strict=True)], tools.seed),
            **read_back([tools.last(answer, "image") for answer in answers], wanted, tools.seed),
        }


def _boxes(answer: Answer) -> list[LabelledBox]:
    """Labelled boxes of all layout calls; a box without a label says nothing."""
    calls = [call for call in answer.reply.calls if call.task == "layout_to_image"]
    return [(r.label, r.box) for call in calls for r in call.regions if r.box is not None and r.label]


def _count(boxes: Sequence[LabelledBox], names: Sequence[str]) -> CountScore:
    """The counting rule without its loose matching of names: "red 9" is part of "red 99" and not the same."""
    labels = [label if label in names else "?" for label, _ in boxes]
    return score_counts(labels, [(name, 1) for name in names])


def _holds(boxes: Sequence[LabelledBox], relations: Sequence[tuple[str, str, str]]) -> bool:
    """Whether all relations hold; boxes are found by their exact names, not by near ones."""
    return all(
        score_relation([box for box in boxes if box[0] in (first, second)], first, second, wanted)
        for first, wanted, second in relations
    )


def _placed(boxes: Sequence[LabelledBox], answer: Answer) -> float:
    plan = answer.facts["plan"]
    hits = [any(is_located(box, item["box"]) for label, box in boxes if label == item["name"]) for item in plan]
    return sum(hits) / len(hits)
