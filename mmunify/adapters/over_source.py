"""Any adapter, whose answer is laid over the features of the picture that an edit starts from."""

import torch
from torch import nn

from mmunify.errors import DataError
from mmunify.layers.idle import touch
from mmunify.layers.projector import projector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

KEPT = 2.0
"""What a share starts from, before the sigmoid: an edit leaves most of a picture as it is."""


@ADAPTERS.register("over_source")
class OverSourceAdapter(Adapter):
    """As the connector of a head: says what changes, and where the source shows through.

    The adapter inside makes one number more per token: the share of the source's features that stays. An MLP that reads
    both, token by token, retouches what was made: a digit in another colour is mostly the digit that was there. Items
    that start from no picture are made by the adapter alone. Features are put together as pixels are in layered picture
    synthesis (https://arxiv.org/abs/2105.06993).

    Args:
        in_dim: width E of what it reads (given by the composer).
        out_dim: width D of its answer and of the source's features (given by the composer).
        adapter: node of the adapter inside; one that takes any width (`mlp`, `additive`, `sprites`), as it makes one
            number more than D, which heads and positions of attention may not divide.
        dim: inside the MLP, which changes nothing at first.
    """

    def __init__(self, in_dim: int, out_dim: int, adapter: dict, dim: int = 512) -> None:
        super().__init__()
        inside = {key: value for key, value in adapter.items() if key != "out_dim"}
        self.adapter: Adapter = ADAPTERS.build(inside, in_dim=in_dim, out_dim=out_dim + 1)
        self.retouch = projector(2 * out_dim + 1, dim, out_dim + 1)
        nn.init.zeros_(self.retouch[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.retouch[-1].bias)  # type: ignore[arg-type]
        self.needs, self.side_text = self.adapter.needs | {"source"}, self.adapter.side_text

    def layout(self, layout: Layout) -> Layout:
        """That of the adapter inside."""
        return self.adapter.layout(layout)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, S, D), over `context.source` (M, S, D), whose mask is False where an item has none.

        Raises:
            DataError: a source of another shape.
        """
        made = self.adapter(features, context)
        own = made.tokens[..., :-1]
        source = context.source
        if source is None:
            return Embeds(tokens=touch(own, [self.retouch]), mask=made.mask, num_frames=made.num_frames)
        if source.tokens.shape != own.shape:
            raise DataError(
                f"over_source makes {tuple(own.shape)} (items, tokens, width) and lies over features of "
                f"{tuple(source.tokens.shape)}; both must be alike"
            )
        there = source.tokens.to(own.dtype)
        retouched = made.tokens + self.retouch(torch.cat([there, made.tokens], dim=-1))
        mixed = torch.lerp(retouched[..., :-1], there, (retouched[..., -1:] + KEPT).sigmoid())
        tokens = mixed if source.mask is None else torch.where(source.mask[..., None], mixed, own)
        return Embeds(tokens=tokens, mask=made.mask, num_frames=made.num_frames)
