"""A bidirectional transformer at the width of what it reads, then an MLP: MetaQuery's connector."""

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.projector import projector
from mmunify.layers.rotary import RotaryBlock
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

STD = 0.014


@ADAPTERS.register("encoder_mlp")
class EncoderMLPAdapter(Adapter):
    """MetaQuery's connector (https://arxiv.org/abs/2504.06256): encode at full width first, project afterwards.

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
        heads = num_heads or max(1, in_dim // 64)
        self.blocks = nn.ModuleList(RotaryBlock(in_dim, heads, hidden_dim) for _ in range(depth))
        self.norm = nn.RMSNorm(in_dim, eps=1e-6)
        self.apply(_draw)
        self.project = projector(in_dim, out_dim, out_dim)
        self.out_norm = nn.RMSNorm(out_dim, eps=1e-5)
        nn.init.constant_(self.out_norm.weight, gain)

    def layout(self, layout: Layout) -> Layout:
        """Slots and grid stay as they are."""
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, N, D)."""
        return Embeds(tokens=self._answer(features), mask=features.mask)

    def _answer(self, features: Features) -> Float[Tensor, "M N D"]:
        states = features.tokens
        for block in self.blocks:
            states = block(states, features.mask)
        return self.out_norm(self.project(self.norm(states)))


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
