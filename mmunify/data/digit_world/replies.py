"""What the assistant answers: words, and outputs that heads make, or that are written as text where no head does."""

from collections.abc import Collection, Sequence
from typing import Any

from mmunify.data.digit_world.facts import target_picture
from mmunify.data.digit_world.scene import digit_mask
from mmunify.data.digit_world.tasks import TASKS, Exchange, region_of
from mmunify.errors import DataError
from mmunify.registry import did_you_mean
from mmunify.tokens import format_call, format_region
from mmunify.types import Output, Text

OUTPUTS = ("generate_image", "segment", "refer")
"""Tasks whose answers are outputs unless a data set is told otherwise: a picture, a mask, a box."""

KINDS = {"segment": "mask", "refer": "box"}
"""Task -> kind of its output, where it is no picture."""

WORDS = ("caption", "question")


def reply_parts(
    exchange: Exchange,
    outputs: Collection[str] = OUTPUTS,
    condition: int | None = None,
    boxed: Collection[str] = (),
) -> tuple[Text | Output, ...]:
    """The assistant's turn.

    Args:
        exchange: what was asked.
        outputs: tasks whose answers are outputs. The others call experts, and say boxes in words.
        condition: number of the medium that the exchange is about.
        boxed: tasks whose output follows the boxes of its digits in words, where the output's head may read them: of
            what is asked for or pointed at, and of what an edit makes of it.
    """
    if exchange.task not in outputs:
        said = exchange.answer if exchange.call is None else format_call(exchange.call)
        return (Text(text=exchange.opening + said),)
    output = _output(exchange, condition if exchange.scene is not None else None)
    said = exchange.opening + (_boxes_in_words(exchange) if exchange.task in boxed else "")
    return (Text(text=said), output) if said else (output,)


def _boxes_in_words(exchange: Exchange) -> str:
    if exchange.plan is not None:
        return "".join(map(format_region, exchange.plan.regions))
    if exchange.scene is None or exchange.subject is None:
        return ""
    regions = [region_of(exchange.scene, exchange.subject)]
    if exchange.result is not None and len(exchange.result.digits) == len(exchange.scene.digits):
        regions.append(region_of(exchange.result, exchange.subject))
    return "".join(map(format_region, regions))


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """The tasks, if their answers can be outputs.

    Raises:
        DataError: a task that has no output.
    """
    known = [task for task in TASKS if task not in WORDS]
    for task in outputs:
        if task not in known:
            message = f"no output of digit-world task {task!r}{did_you_mean(task, known)} Known: {', '.join(known)}"
            raise DataError(message)
    return tuple(outputs)


def _output(exchange: Exchange, condition: int | None) -> Output:
    """The output, with the same as text beside it: a call, or a region."""
    kind = KINDS.get(exchange.task, "image")
    region = None
    if exchange.call is None and exchange.scene is not None and exchange.subject is not None:
        region = region_of(exchange.scene, exchange.subject)
    target = _target(exchange, kind)
    return Output(kind=kind, target=target, call=exchange.call, region=region, condition=condition)


def _target(exchange: Exchange, kind: str) -> Any:
    if kind == "image" or exchange.scene is None or exchange.subject is None:
        return target_picture(exchange)
    if kind == "mask":
        return digit_mask(exchange.scene, exchange.subject)
    return exchange.scene.digits[exchange.subject].norm_box(exchange.scene.size)
