"""Everything is an interleaved sequence: turns of text, media that goes in, outputs that come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), each in 0..1, relative to the original medium; x right, y down."""

Source = str | Path | np.ndarray | Any
"""Where a medium comes from: a path, an array (H W 3 uint8), or a PIL image."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of a medium, in the frame of the *original* medium: exactly one of box, points, mask.

    Attributes:
        box: corners in 0..1.
        points: (x, y) pairs in 0..1: clicks or an outline.
        mask: Bool[H W] of the original size.
        label: the phrase that names it.
        time: (start, end) in 0..1 of the clip.
        track: identity of the object over frames.
    """

    box: Box | None = None
    points: tuple[tuple[float, float], ...] | None = None
    mask: np.ndarray | None = None
    label: str = ""
    time: tuple[float, float] | None = None
    track: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("box", "points", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a Region takes exactly one of box, points, mask; got {given or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCall:
    """One request to an expert, as the model wrote it: `<task>instruction</task><box>label[...]</box>...`

    Attributes:
        task: name of the task ("segment", "edit", ...).
        instruction: the text between the task tokens.
        regions: grounded regions that belong to the call, in order, with their labels.
        condition: [Q E] features that a head predicted for this call, instead of or beside text.
        media: index of the medium that the call works on; None = the latest.
        span: (start, end) characters of the call in the reply that it was parsed from.
    """

    task: str
    instruction: str = ""
    regions: tuple[Region, ...] = ()
    condition: Tensor | None = None
    media: int | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Words of a turn. `learned` None: assistant turns are learned, others are not."""

    text: str
    learned: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A medium that goes in. `kind` is "image", "video", "audio" ...; `codes` are cached discrete codes."""

    kind: str
    source: Source = None
    region: Region | None = None
    codes: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A medium that comes out.

    A head with slots for `kind` learns `target`; where the head has none (`task_tokens`), `call` is written as text.

    Attributes:
        kind: "image", "video", "audio" ...
        target: what the output should be; None when unknown (prompts).
        call: the same request as a task call for an expert.
        region: the same as a region of the answer, written as text where no head makes it (boxes).
        condition: index, within the sample, of the medium that the output starts from (edits).
        codes: cached discrete codes of the target.
    """

    kind: str
    target: Source = None
    call: TaskCall | None = None
    region: Region | None = None
    condition: int | None = None
    codes: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one speaker says: text, media and outputs in the order in which they are said.

    Attributes:
        role: who speaks.
        parts: what is said.
        task: what the turn asks for or answers, where a sample has turns of several tasks; "" = the sample's task.
    """

    role: Role
    parts: tuple[Text | Media | Output, ...]
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One conversation.

    Attributes:
        turns: the turns in order.
        id: names the sample in messages and reports.
        task: what the sample teaches or tests ("caption", "question", "refer" ...).
        source: the data set it came from.
        facts: ground truth for evaluation; never seen by the model.
    """

    turns: tuple[Turn, ...]
    id: str = ""
    task: str = ""
    source: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
