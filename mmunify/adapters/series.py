"""Adapters one behind the other."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from mmunify.errors import UserError
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout, Run


@ADAPTERS.register("series")
class SeriesAdapter(Adapter):
    """Every adapter reads what the one before made; what they need beside tokens comes from the encoder.

    Widths between them are theirs to say: `[{name: qformer, dim: 768, out_dim: null}, {name: mlp, in_dim: 768}]` is
    UnifiedMLLM's Q-Former with its two-layer MLP (https://arxiv.org/abs/2408.02503).

    Args:
        parts: built adapters, the first one first.

    Raises:
        UserError: no parts.
    """

    def __init__(self, parts: Sequence[Adapter]) -> None:
        super().__init__()
        if not parts:
            raise UserError("a series needs at least one adapter; got parts=[]")
        self.parts = nn.ModuleList(parts)
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.side_text = next((part.side_text for part in parts if part.side_text), None)

    def layout(self, layout: Layout) -> Layout:
        """The last part's slots."""
        for part in self.parts:
            layout = part.layout(layout)  # type: ignore[operator]
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, S, D)."""
        embeds = Embeds(tokens=features.tokens, mask=features.mask)
        for part in self.parts:
            grid = _next_grid(part, features)  # type: ignore[arg-type]
            embeds = part(features, context)
            features = replace(
                features, tokens=embeds.tokens, mask=embeds.mask, grid=grid, num_frames=embeds.num_frames
            )
        return embeds


def _next_grid(part: Adapter, features: Features) -> tuple[int, int] | None:
    """Raster of one frame of what a part makes."""
    run = Run(slots=features.tokens.shape[1], grid=features.grid, num_frames=features.num_frames or 1)
    made = part.layout(Layout(runs=(run,)))
    return made.runs[0].grid if len(made.runs) == 1 else None
