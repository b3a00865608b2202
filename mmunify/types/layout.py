"""How one item lies in the sequence, and what the data side knows of a node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stretch of one item inside the sequence: `slots` embedding positions, or one vocabulary string.

    Attributes:
        slots: number of positions filled with embeddings (0 for a string).
        token: the vocabulary string at this place ("" for slots).
        grid: (rows, columns) of the slots, or of each frame's, if they form one.
        num_frames: frames or segments of slots without a grid, each with as many.
    """

    slots: int = 0
    token: str = ""
    grid: tuple[int, int] | None = None
    num_frames: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Runs of slots and vocabulary strings of one item, in order."""

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, slots: int, grid: tuple[int, int] | None = None) -> "Layout":
        """One run of `slots` positions."""
        return cls(runs=(Run(slots=slots, grid=grid),))

    @property
    def num_slots(self) -> int:
        """Embedding positions of the item, strings not counted."""
        return sum(run.slots for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSpec:
    """What data.encode needs to know of a node to lay its items out, as plain data.

    Attributes:
        opens: vocabulary string before the item ("<image>").
        closes: vocabulary string after it.
        layout: the item's layout; None when it depends on the item's extent.
        learned: which of the strings carry text loss: subset of {"opens", "closes", "inside"}.
        positions: "advance" = one position per slot; "shared" = the whole item sits at one position.
        attention: "causal" or "full" among the slots of one item.
        as_text: the output has no slot: its task call is written as text.
    """

    opens: str = ""
    closes: str = ""
    layout: Layout | None = None
    learned: frozenset[str] = frozenset()
    positions: Literal["advance", "shared"] = "advance"
    attention: Literal["causal", "full"] = "causal"
    as_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How a medium becomes numbers: numbers themselves, no code.

    Attributes:
        kind: of the medium.
        size: (height, width) of a picture.
        mean, std: per channel, on values in 0..1.
        fit: "pad" to a square with the mean colour, centred; "stretch"; or centre "crop".
    """

    kind: str = "image"
    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    fit: Literal["pad", "stretch", "crop"] = "pad"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideText:
    """The words beside a medium, for an adapter that reads them with it (InstructBLIP's Q-Former): those of its turn.

    Attributes:
        vocab_size: ids that the adapter knows.
        path: folder or hub id of its tokenizer; "" = the backbone's.
        max_length: ids that it reads; further ones are cut off.
    """

    vocab_size: int
    path: str = ""
    max_length: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node as the data side sees it: the kind of medium, its slots, its preprocessing, the words that go with it.

    `preprocess` of a head's node is that of the encoder whose features it learns; None = the target is not read.
    """

    kind: str
    slot: SlotSpec | None
    preprocess: Preprocess | None
    side_text: SideText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that the data side knows of a model: its media nodes (encoders) and output nodes (heads)."""

    media: Mapping[str, NodeSpec] = field(default_factory=dict)
    outputs: Mapping[str, NodeSpec] = field(default_factory=dict)
