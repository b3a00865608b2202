"""A small MLP, token by token."""

from mmunify.errors import UserError
from mmunify.layers.projector import projector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("mlp")
class MLPAdapter(Adapter):
    """The projector of LLaVA-1.5 (https://arxiv.org/abs/2310.03744): linear, then (GELU, linear) `depth - 1` times.

    `layers.0`, `layers.2`, ... are the linears, numbered as in LLaVA's `mm_projector`.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        depth: number of linears.
        hidden_dim: width between them; None = D.

    Raises:
        UserError: depth below 1.
    """

    def __init__(self, in_dim: int, out_dim: int, depth: int = 2, hidden_dim: int | None = None) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"depth of an mlp adapter is the number of its linears, at least 1; got {depth}")
        self.layers = projector(in_dim, *[hidden_dim or out_dim] * (depth - 1), out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Slots and grid stay as they are."""
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, N, D)."""
        return Embeds(tokens=self.layers(features.tokens), mask=features.mask, num_frames=features.num_frames)
