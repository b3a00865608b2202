"""Several adapters of one node, side by side in the sequence (LION: 32 query tokens + 257 patch tokens)."""

from collections.abc import Sequence

import torch
from torch import nn

from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("concatenate")
class ConcatenateAdapter(Adapter):
    """Concatenates what its parts make of the same features along S; a recipe writes a list of nodes.

    Args:
        parts: built adapters.
    """

    def __init__(self, parts: Sequence[Adapter]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.needs = frozenset().union(*(part.needs for part in parts))
        self.side_text = next((part.side_text for part in parts if part.side_text), None)

    def layout(self, layout: Layout) -> Layout:
        """The parts' runs, one after the other."""
        return Layout(runs=tuple(run for part in self.parts for run in part.layout(layout).runs))  # type: ignore[operator]

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, S1 + S2 + ..., D)."""
        made = [part(features, context) for part in self.parts]
        tokens = torch.cat([m.tokens for m in made], dim=1)
        if all(m.mask is None for m in made):
            return Embeds(tokens=tokens)
        full = [torch.ones(m.tokens.shape[:2], dtype=torch.bool, device=tokens.device) for m in made]
        masks = [one if m.mask is None else m.mask for m, one in zip(made, full, strict=True)]
        return Embeds(tokens=tokens, mask=torch.cat(masks, dim=1))
