"""What parts hand to each other within a step."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from mmunify.types.base import TensorStruct


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(TensorStruct):
    """What an encoder says of its items.

    Attributes:
        tokens: the sequence that adapters read.
        mask: True where a token is real; None = all.
        grid: (rows, columns) if the tokens are a raster.
        pooled: one vector per item, if the encoder has one.
        layers: hidden states of the layers that were asked for.
        num_frames: frames or segments that the tokens are of, one after the other, each with as many; a raster says it
            already: None = as many as rasters of `grid` fit in, one without a grid.
        centers: where in the picture every tile has its centre (x, y), in 0..1.
    """

    tokens: Float[Tensor, "M N E"]
    mask: Bool[Tensor, "M N"] | None = None
    grid: tuple[int, int] | None = None
    pooled: Float[Tensor, "M P"] | None = None
    layers: dict[int, Tensor] = field(default_factory=dict)
    num_frames: int | None = None
    centers: Float[Tensor, "M F 2"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeds(TensorStruct):
    """What an adapter or a head puts into the sequence.

    Attributes:
        tokens: one per slot.
        mask: True where a slot is real; None = all.
        num_frames: frames that an adapter kept apart, for one that stands behind it in a series.
    """

    tokens: Float[Tensor, "M S D"]
    mask: Bool[Tensor, "M S"] | None = None
    num_frames: int | None = None


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
        image: [K C H W] source pixels (edits), in 0..1.
        features: the source's features.
        drop: True where the condition is dropped (classifier-free guidance).
        mask: True where a state is real; None = all.
        image_mask: True where an item has a source picture; None = all have, if there are any.
        null: states of "no condition", the same for all items (features of a grey picture).
        encoded_image: [K Q E] features of `image`, by the encoder whose features the states are like, if there is one.
        caption: [K L C] the caption in the space of a text encoder, to learn from or beside the states.
    """

    states: Float[Tensor, "K Q E"]
    pooled: Float[Tensor, "K P"] | None = None
    image: Float[Tensor, "K C H W"] | None = None
    features: Features | None = None
    drop: Bool[Tensor, "K"] | None = None
    mask: Bool[Tensor, "K Q"] | None = None
    image_mask: Bool[Tensor, "K"] | None = None
    null: Float[Tensor, "N E"] | None = None
    encoded_image: Float[Tensor, "K Q E"] | None = None
    caption: Float[Tensor, "K L C"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOutput:
    """Losses of one head as *sums*, with the counts that divide them, reduced by the trainer before dividing.

    Attributes:
        losses: sums over what counts.
        counts: how much counts.
        predictions: what else it says.
        conditions: what a linked de-tokenizer starts from.
        documents: a loss document by document, where the head can tell: sums and counts, for telemetry.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)
    conditions: Condition | None = None
    documents: dict[str, Float[Tensor, "2 docs"]] = field(default_factory=dict)


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
