"""A bidirectional transformer at the width of what it reads, then an MLP: MetaQuery's connector."""

from mmunify.errors import UserError
from mmunify.layers.flow_connector import FlowConnector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("encoder_mlp")
class EncoderMLPAdapter(Adapter):
    """MetaQuery's connector (https://arxiv.org/abs/2504.06256): encode at full width first, project afterwards;
    see `FlowConnector`.

    Args:
        in_dim: width of what it reads (given by the composer).
        out_dim: width D of its answer (given by the composer).
        depth: blocks (published: 24).
        num_heads: of every attention; None = heads of 64.
        hidden_dim: inside the feed-forwards; None = Llama's rule.
        gain: of the norm at the end (published: the square root of 5.5 for Sana, 1 for Stable Diffusion).

    Raises:
        UserError: a depth below 1, or heads of an odd width.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        depth: int = 24,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"an encoder_mlp needs a depth of at least 1, got {depth}; `mlp` has no blocks")
        self.connector = FlowConnector(in_dim, out_dim, depth, num_heads, hidden_dim, gain=gain)

    def layout(self, layout: Layout) -> Layout:
        """Slots and grid stay as they are."""
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, N, D)."""
        made = self.connector(features.tokens, features.mask)
        return Embeds(tokens=made, mask=features.mask, num_frames=features.num_frames)
