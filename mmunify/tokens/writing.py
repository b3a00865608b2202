"""Calls and regions -> text."""

import math
from collections.abc import Sequence

from mmunify.errors import TokenError
from mmunify.faults import did_you_mean
from mmunify.tokens.entities import escape
from mmunify.tokens.frames import Extent, pad_box
from mmunify.tokens.locations import write_box
from mmunify.tokens.pairs import DEFAULT_TOKENS, TokenRegistry
from mmunify.types import Region, TaskCall


def format_call(call: TaskCall, extent: Extent | None = None, registry: TokenRegistry | None = None) -> str:
    """Write a call as text. Task, instruction, labels and boxes are written; nothing else of a call has a text form.

    Args:
        call: what to write.
        extent: (width, height) of the image; coordinates are then relative to its padded square.
        registry: whose tokens to use.

    Raises:
        TokenError: an unknown task, an empty instruction, missing or too many regions, a region without a valid box.
    """
    tokens = registry or DEFAULT_TOKENS
    if call.task not in tokens.tasks:
        raise TokenError(
            f"unknown task {call.task!r}{did_you_mean(call.task, tokens.task_names)} Known: {tokens.task_names}"
        )
    if not call.instruction.strip():
        raise TokenError(f"the instruction of a {call.task} call is {call.instruction!r}; say in words what to do")
    if tokens.requires_regions(call.task) and not call.regions:
        raise TokenError(f"a {call.task} call needs at least one region; {call.instruction!r} has none")
    if len(call.regions) > tokens.max_boxes:
        raise TokenError(f"a call takes at most {tokens.max_boxes} boxes; {call.instruction!r} has {len(call.regions)}")
    opens, closes = tokens.pair(call.task)
    grounding = _format_regions(call.regions, tokens.frame_of(call.task, extent), tokens)
    return f"{opens}{escape(call.instruction)}{closes}{grounding}"


def format_region(region: Region, extent: Extent | None = None, registry: TokenRegistry | None = None) -> str:
    """Write a region as a grounding pair, e.g. `<box>red 7[0.125,0.250,0.375,0.500]</box>`.

    A box narrower than the third decimal is written 0.001 wide.

    Raises:
        TokenError: a region that isn't a box (see `bounding_box`), has a time or a track, or a box that is inverted,
            empty or outside 0..1.
    """
    return _format_regions((region,), extent, registry or DEFAULT_TOKENS)


def _format_regions(regions: Sequence[Region], extent: Extent | None, tokens: TokenRegistry) -> str:
    """Neighbours of one label share a pair."""
    opens, closes = tokens.pair(tokens.grounding)
    parts, label = [], None
    for region in regions:
        if region.label != label:
            parts += [closes, opens, escape(region.label, "[]")]
        parts.append(_format_box(region, extent, tokens.bins))
        label = region.label
    return "".join([*parts[1:], closes]) if parts else ""


def _format_box(region: Region, extent: Extent | None, bins: int) -> str:
    if region.box is None or region.time is not None or region.track is not None:
        raise TokenError(f"region {region.label!r} has no text form: only a box has one, without time or track")
    x0, y0, x1, y1 = region.box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise TokenError(
            f"the box {region.box} of region {region.label!r} must hold 0 <= x0 < x1 <= 1, 0 <= y0 < y1 <= 1"
        )
    x0, y0, x1, y1 = pad_box(region.box, extent) if extent else region.box
    if bins:
        return write_box((x0, y0, x1, y1), bins)
    (x0, x1), (y0, y1) = _thousandths(x0, x1), _thousandths(y0, y1)
    return f"[{x0 / 1000:.3f},{y0 / 1000:.3f},{x1 / 1000:.3f},{y1 / 1000:.3f}]"


def _thousandths(low: float, high: float) -> tuple[int, int]:
    """Rounded; where that leaves no width, rounded outwards, so that un-padding cannot lose the box in the padding."""
    first, last = round(low * 1000), round(high * 1000)
    return (first, last) if first < last else (math.floor(low * 1000), math.floor(low * 1000) + 1)
