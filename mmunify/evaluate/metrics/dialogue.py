"""Dialogues: is each turn right, given the conversation before it as it should have been?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import box_iou, exact_match
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS
from mmunify.types import Region, TaskCall

LEAST_IOU = 0.5
"""A box must overlap the true one by more than this."""


@METRICS.register("dialogue")
class DialogueProtocol(Protocol):
    """`turn_accuracy`: share of right turns; one turn of each dialogue is asked, with the true history before it.

    A turn in words must be equal to the truth (see `normalise`). A turn with boxes must name the same things, each with
    an IoU above 0.5. A turn with calls needs the same tasks, instructions and regions in the same order; the words
    around them are free. The same for turns of one kind (`_words`, `_boxes`, `_calls`), and for the first turn of a
    dialogue and those behind it (`_first`, `_later`).
    """

    tasks = ("dialogue",)

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Parts without turns are left out."""
        hits = [(kind_of(answer), _place(answer), is_right(answer)) for answer in answers]
        measures = {"turn_accuracy": rate([hit for *_, hit in hits])}
        for part in ("words", "boxes", "calls", "first", "later"):
            measures[f"turn_accuracy_{part}"] = rate([hit for kind, place, hit in hits if part in (kind, place)])
        return measures


def kind_of(answer: Answer) -> str:
    """What the true turn consists of: "calls" (or output slots), "boxes" or "words"."""
    if answer.asked:
        return "calls"
    return "boxes" if answer.truth.regions else "words"


def is_right(answer: Answer) -> bool:
    """Whether a turn says what it should; a reply that was cut off doesn't."""
    reply, truth = answer.reply, answer.truth
    pairs = zip(reply.calls, truth.calls, strict=False)
    same_calls = answer.given == answer.asked and len(reply.calls) == len(truth.calls)
    same_words = kind_of(answer) == "calls" or exact_match(reply.text, truth.text)
    return bool(
        answer.finished
        and same_words
        and same_calls
        and all(_same_call(*pair) for pair in pairs)
        and _same_regions(reply.regions, truth.regions)
    )


def _same_call(call: TaskCall, truth: TaskCall) -> bool:
    same = call.task == truth.task and exact_match(call.instruction, truth.instruction)
    return same and _same_regions(call.regions, truth.regions)


def _same_regions(regions: Sequence[Region], truths: Sequence[Region]) -> bool:
    pairs = zip(regions, truths, strict=False)
    return len(regions) == len(truths) and all(_same_region(region, truth) for region, truth in pairs)


def _same_region(region: Region, truth: Region) -> bool:
    located = region.box is not None and truth.box is not None and box_iou(region.box, truth.box) > LEAST_IOU
    return located and exact_match(region.label, truth.label)


def _place(answer: Answer) -> str:
    """Whether the assistant has said nothing before ("first"), or something ("later")."""
    before = any(turn.role == "assistant" for turn in answer.prompt.sample.turns)
    return "later" if before else "first"
