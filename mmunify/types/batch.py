"""What the model takes: rows of ids, and media and outputs packed over the batch."""

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.types.base import TensorStruct
from mmunify.types.state import Features


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaBatch(TensorStruct):
    """The items of one encoder node, packed over the batch.

    Attributes:
        values: [M F C H W] pictures and clips (F = 1 for a still picture), [M L] sound; None with cached features.
        slots: where their embeddings go; None for an encoder that fills no slots. Items follow row-major order.
        document: row-major document index of every item.
        extent: original (width, height) of every item; (samples, 1) for sound.
        features: cached features in place of values.
        keys: under which the cache is to keep the features of every item; "" = it isn't.
        side_ids, side_mask: ids of the words beside every item, and which are real, where an adapter reads them.
    """

    values: Float[Tensor, "M ..."] | None
    slots: Bool[Tensor, "B T"] | None
    document: Int[Tensor, "M"]
    extent: Int[Tensor, "M 2"]
    features: Features | None = None
    keys: tuple[str, ...] = ()
    side_ids: Int[Tensor, "M L"] | None = None
    side_mask: Bool[Tensor, "M L"] | None = None


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
        turn_task: task index per position, where turns have tasks of their own; None = the document's everywhere.
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
    turn_task: Int[Tensor, "B T"] | None = None
    seed: int = 0
    step: int = 0

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.input_ids.shape[0]
