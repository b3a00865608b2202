"""One linear map, token by token."""

from torch import nn

from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("linear")
class LinearAdapter(Adapter):
    """The projector of LLaVA-1 (https://arxiv.org/abs/2304.08485): one linear layer, one slot per token.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        bias: whether it has one.
    """

    def __init__(self, in_dim: int, out_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, out_dim, bias=bias)

    def layout(self, layout: Layout) -> Layout:
        """Slots and grid stay as they are."""
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, N, D)."""
        return Embeds(tokens=self.project(features.tokens), mask=features.mask, num_frames=features.num_frames)
