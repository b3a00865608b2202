"""A range of the backbone's own hidden states as the condition of a generator."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.heads._features import (
    build_connector,
    connect,
    distance,
    made_width,
    num_made,
    require_distance,
    wanted_tokens,
)
from mmunify.heads._sources import output_sources, slot_sources
from mmunify.heads._token_head import closing, last_positions, read_ranges, require_hidden, token_slot
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Condition, Features, HeadOutput, Hidden, SlotSpec


@HEADS.register("hidden_states")
class HiddenStateHead(Head):
    """What the backbone thinks of the conversation so far, handed on through a connector, as in OmniGen2
    (https://arxiv.org/abs/2506.18871) and UniWorld (https://arxiv.org/abs/2506.03147).

    The model writes `<img>`; the states of the last `num_states` positions of its document, the opening one included,
    are the condition. No position is spent on it. Where there are fewer positions, zeros come first; a connector with
    queries (resampler, perceiver, qformer, mapper) doesn't see them.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the target encoder (given by the composer).
        num_states: length of the range.
        layer: of the hidden states: 0 = embeddings, -1 = the last after its norm.
        connector: node of the adapter between states and condition; None = two linears with GELU between.
        target: encoder node that reads the target picture; its width is that of the condition, unless the connector
            has an out_dim of its own.
        loss: "none" = a linked de-tokenizer teaches it; or a distance to the target's features, see `queries`.
        opens: string that asks for the output; the one after it is its closing tag.

    Raises:
        UserError: a length below 1, or an unknown loss.
    """

    def __init__(
        self,
        in_dim: int,
        target_dim: int | None = None,
        num_states: int = 256,
        layer: int = -1,
        connector: dict | None = None,
        target: str = "image",
        loss: str = "none",
        opens: str = "<img>",
    ) -> None:
        super().__init__()
        if num_states < 1:
            raise UserError(f"num_states of a hidden_states head is at least 1, got {num_states}")
        self.loss = loss if loss == "none" else require_distance(loss, "hidden_states")
        self.target, self.num_states, self.layer, self.layers = target, num_states, layer, (layer,)
        self.encodes_target = loss != "none"
        width = made_width(connector, target_dim, target_dim if self.encodes_target else None, "hidden_states")
        self.connector = build_connector(connector, in_dim, width, target)
        self.output_shape = (num_made(self.connector, num_states), width)
        self._spec = SlotSpec(opens=opens, closes=closing(opens, "hidden_states"), learned=frozenset({"opens"}))

    @property
    def spec(self) -> SlotSpec | None:
        """An opening string and nothing inside."""
        return self._spec

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the range (K, n, D) -> the condition (K, Q, E).

        Raises:
            DataError: a loss, and items without a target picture.
        """
        given = require_hidden(hidden, self)
        states, real = read_ranges(given.last if self.layer == -1 else given.layers[self.layer], batch, self)
        source = output_sources(self, batch, features)
        predicted = connect(self.connector, *last_positions(states, real, self.num_states), source)
        condition = Condition(states=predicted)
        if self.loss == "none":
            return HeadOutput(conditions=condition)
        wanted = wanted_tokens(features, predicted, self.node)
        losses = {self.loss: distance(self.loss, predicted, wanted)}
        return HeadOutput(losses=losses, counts={self.loss: predicted.new_tensor(len(predicted))}, conditions=condition)

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K Q E"]:
        """The condition of what was said so far."""
        states, real = token_slot(slot).prefix(self.layer)
        return connect(self.connector, *last_positions(states, real, self.num_states), slot_sources(self, slot))
