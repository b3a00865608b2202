"""The data that flows through mmunify. One legend of letters for the whole library:

    B rows          T positions        D backbone width    V vocabulary
    M media items of one encoder node, packed over the batch
    F frames        C H W pixels       N encoder tokens per item     E encoder width
    S slot length of an item           K output items of one head node, packed over the batch
    Q queries per output item          R rank              X low-rank experts

A *document* is one sample inside a row; without packing there is one document per row.
All structures are frozen, slotted and keyword-only: a step makes a new one, it never edits one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), each in 0..1, relative to the original medium; x right, y down."""

Source = str | Path | np.ndarray | Any
"""Where a medium comes from: a path, an array (H W 3 uint8), or a PIL image."""

Role = Literal["system", "user", "assistant"]


def _move(value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Apply the tensor method `name` ("to", "pin_memory") to every tensor inside `value`."""
    if isinstance(value, Tensor | TensorStruct):
        return getattr(value, name)(*args, **kwargs)
    if isinstance(value, Mapping):
        return {key: _move(item, name, *args, **kwargs) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_move(item, name, *args, **kwargs) for item in value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStruct:
    """A structure with tensors inside: moves between devices and pins like a tensor does."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move every tensor inside, as `Tensor.to` does."""
        return replace(self, **{f.name: _move(getattr(self, f.name), "to", *args, **kwargs) for f in fields(self)})

    def pin_memory(self) -> Self:
        """Pin every tensor inside, so that a DataLoader can copy it asynchronously."""
        return replace(self, **{f.name: _move(getattr(self, f.name), "pin_memory") for f in fields(self)})


# ------------------------------------------------------------------------------------------- conversations


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
        condition: index, within the sample, of the medium that the output starts from (edits).
        codes: cached discrete codes of the target.
    """

    kind: str
    target: Source = None
    call: TaskCall | None = None
    condition: int | None = None
    codes: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one speaker says: text, media and outputs in the order in which they are said."""

    role: Role
    parts: tuple[Text | Media | Output, ...]


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


# ------------------------------------------------------------------------------------------- slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stretch of one item inside the sequence: `slots` embedding positions, or one vocabulary string.

    Attributes:
        slots: number of positions filled with embeddings (0 for a string).
        token: the vocabulary string at this place ("" for slots).
        grid: (rows, columns) of the slots, if they form one.
    """

    slots: int = 0
    token: str = ""
    grid: tuple[int, int] | None = None


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
class NodeSpec:
    """One node as the data side sees it: the kind of medium, its slots, its preprocessing.

    `preprocess` of a head's node is that of the encoder whose features it learns; None = the target is not read.
    """

    kind: str
    slot: SlotSpec | None
    preprocess: Preprocess | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that the data side knows of a model: its media nodes (encoders) and output nodes (heads)."""

    media: Mapping[str, NodeSpec] = field(default_factory=dict)
    outputs: Mapping[str, NodeSpec] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaBatch(TensorStruct):
    """The items of one encoder node, packed over the batch.

    Attributes:
        values: [M F C H W] pictures and clips (F = 1 for a still picture), [M L] sound, or None when features are cached.
        slots: where their embeddings go; None for an encoder that fills no slots. Items follow row-major order.
        document: row-major document index of every item.
        extent: original (width, height) of every item; (samples, 1) for sound.
        features: cached features in place of values.
    """

    values: Float[Tensor, "M ..."] | None
    slots: Bool[Tensor, "B T"] | None
    document: Int[Tensor, "M"]
    extent: Int[Tensor, "M 2"]
    features: "Features | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBatch(TensorStruct):
    """The output items of one head node, packed over the batch.

    Attributes:
        slots: where the head's slot inputs go; None without slots.
        document: document index of every item.
        target: [K C H W] preprocessed targets, or a list where sizes differ; None when no target is known.
        condition: per item (encoder node, item index) of the medium that it starts from.
    """

    slots: Bool[Tensor, "B T"] | None
    document: Int[Tensor, "K"]
    target: Float[Tensor, "K ..."] | list[Tensor] | None = None
    condition: tuple[tuple[str, int] | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(TensorStruct):
    """Who may see whom, as data; the backbone turns it into what its kernels take.

    Attributes:
        document: document id per position (padding: -1). Positions see their own document alone.
        segment: id of the slot item that a position belongs to, 0 outside.
        full: positions whose segment attends bidirectionally inside itself.
        valid: False at padding and holes.
    """

    document: Int[Tensor, "B T"]
    segment: Int[Tensor, "B T"]
    full: Bool[Tensor, "B T"]
    valid: Bool[Tensor, "B T"]

    @property
    def is_plain(self) -> bool:
        """Right-padded causal rows with one document each: the kernels' fast path."""
        one_document = bool((self.document == self.document[:, :1])[self.valid].all())
        right_padded = bool((self.valid[:, 1:] <= self.valid[:, :-1]).all())
        return one_document and right_padded and not bool(self.full.any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(TensorStruct):
    """What the model takes. `T` may be 0 when there is no backbone.

    Attributes:
        input_ids: vocabulary ids; slot positions hold the slot token's id.
        labels: ids to learn, -100 elsewhere. labels[b, t] is predicted from position t - 1.
        attention: see `Attention`.
        position_ids: position of every token in its document.
        task: task index per document (rows of the task table), for gates and telemetry.
        media: encoder node -> its items.
        outputs: head node -> its items.
        sample_ids: id of every document's sample, for messages.
        keys: integer key of every document's sample; random draws depend on (seed, step, key, part) alone.
        seed: of the run; step: of the optimiser. Set by the trainer.
    """

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    attention: Attention
    position_ids: Int[Tensor, "B T"]
    task: Int[Tensor, "docs"]
    media: dict[str, MediaBatch] = field(default_factory=dict)
    outputs: dict[str, OutputBatch] = field(default_factory=dict)
    sample_ids: tuple[str, ...] = ()
    keys: tuple[int, ...] = ()
    seed: int = 0
    step: int = 0

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.input_ids.shape[0]


# ------------------------------------------------------------------------------------------- between parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(TensorStruct):
    """What an encoder says of its items.

    Attributes:
        tokens: the sequence that adapters read.
        mask: True where a token is real; None = all.
        grid: (rows, columns) if the tokens are a raster.
        pooled: one vector per item, if the encoder has one.
        layers: hidden states of the layers that were asked for.
    """

    tokens: Float[Tensor, "M N E"]
    mask: Bool[Tensor, "M N"] | None = None
    grid: tuple[int, int] | None = None
    pooled: Float[Tensor, "M P"] | None = None
    layers: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeds(TensorStruct):
    """What an adapter or a head puts into the sequence. mask None = every slot is real."""

    tokens: Float[Tensor, "M S D"]
    mask: Bool[Tensor, "M S"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden(TensorStruct):
    """What the backbone says. There are no logits: heads compute them where they are supervised.

    Attributes:
        inputs: the embeddings that went in.
        last: hidden states after the final norm.
        layers: states of the layers that heads asked for.
        aux: named scalars (balance losses).
        cache: key/value cache for generation.
    """

    inputs: Float[Tensor, "B T D"]
    last: Float[Tensor, "B T D"]
    layers: dict[int, Tensor] = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)
    cache: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition(TensorStruct):
    """What a de-tokenizer starts from.

    Attributes:
        states: [K Q E] predicted or encoded features.
        pooled: one vector per item.
        image: [K C H W] source pixels (edits).
        features: the source's features.
        drop: True where the condition is dropped (classifier-free guidance).
    """

    states: Float[Tensor, "K Q E"]
    pooled: Float[Tensor, "K P"] | None = None
    image: Float[Tensor, "K C H W"] | None = None
    features: Features | None = None
    drop: Bool[Tensor, "K"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutput:
    """Losses of one head as *sums*, with the counts that divide them, reduced by the trainer before dividing."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)
    conditions: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One forward pass: sums and counts per "node/loss", their weights, and the auxiliary scalars.

    `total` is the weighted loss of this batch alone; a trainer that accumulates or reduces over ranks
    uses `losses`, `counts` and `weights` instead.
    """

    losses: dict[str, Tensor]
    counts: dict[str, Tensor]
    weights: dict[str, float]
    aux: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, HeadOutput] = field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum over losses of weight * sum / count, plus the auxiliary scalars."""
        terms = [self.weights[name] * loss / self.counts[name].clamp(min=1) for name, loss in self.losses.items()]
        return sum([*terms, *self.aux.values()])  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that an expert made.

    Attributes:
        kind: "mask" (Bool[H W]), "image" (uint8 [H W 3]), ...
        data: the array.
        call: the call that asked for it.
        producer: registered name of the expert or de-tokenizer.
        seed: of its random draws, if any.
        name: stem of the file that `save` writes; says what it is.
    """

    kind: str
    data: np.ndarray
    call: TaskCall
    producer: str
    seed: int | None = None
    name: str = ""

    def save(self, path: str | Path) -> Path:
        """Write a PNG; a folder gets a file named `<name or task>.png`. Existing files are kept: a number is added."""
        from PIL import Image

        target = Path(path)
        if target.suffix.lower() != ".png":
            target = target / f"{self.name or self.call.task}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        stem, number = target.stem, 2
        while target.exists():
            target, number = target.with_name(f"{stem}-{number}.png"), number + 1
        pixels = self.data.astype(np.uint8) * 255 if self.data.dtype == bool else self.data
        Image.fromarray(pixels).save(target)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the assistant answers.

    Attributes:
        text: the words, without task calls.
        raw: everything that the model wrote.
        calls: the calls to experts, in order.
        regions: regions that the text names outside calls.
        artifacts: what the experts made, in order.
        problems: what was wrong with the reply, as readable strings.
    """

    text: str
    raw: str = ""
    calls: tuple[TaskCall, ...] = ()
    regions: tuple[Region, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    problems: tuple[str, ...] = ()
