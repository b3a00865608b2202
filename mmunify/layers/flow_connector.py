"""States of a language model as the condition of a diffusion transformer."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.layers.projector import projector
from mmunify.layers.rotary import NORM_EPS, RotaryBlock

OUT_EPS = 1e-5
STD = 0.014
"""Of the fresh weights of the blocks."""


class FlowConnector(nn.Module):
    """MetaQuery's connector (https://arxiv.org/abs/2504.06256): encode at full width first, project afterwards.

    Blocks in which all states see each other and know their place, and a norm; then linear, GELU, linear, and a norm.

    Args:
        in_dim: width of the states.
        out_dim: width of the condition.
        depth: number of blocks (MetaQuery: 24; BLIP3-o's open Sana decoder: 0, and no norm in front either).
        num_heads: of the blocks; None = one per 64 numbers of `in_dim`.
        hidden_dim: inside the blocks' feed-forwards; None = Llama's rule.
        project_dim: between the linears; None = `out_dim`.
        gain: weights of the last norm at the start; Sana was trained on captions of about sqrt(5.5).

    Raises:
        UserError: heads of an odd width.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        depth: int = 0,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        project_dim: int | None = None,
        gain: float = 5.5**0.5,
    ) -> None:
        super().__init__()
        heads = num_heads or max(1, in_dim // 64)
        self.blocks = nn.ModuleList(RotaryBlock(in_dim, heads, hidden_dim) for _ in range(depth))
        self.blocks.apply(_draw)
        self.norm = nn.RMSNorm(in_dim, eps=NORM_EPS) if depth else nn.Identity()
        self.project = projector(in_dim, project_dim or out_dim, out_dim)
        self.out_norm = nn.RMSNorm(out_dim, eps=OUT_EPS)
        nn.init.constant_(self.out_norm.weight, gain)

    def forward(
        self, states: Float[Tensor, "K Q E"], mask: Bool[Tensor, "K Q"] | None = None
    ) -> Float[Tensor, "K Q C"]:
        """States -> condition; `mask` is True where a state is real."""
        for block in self.blocks:
            states = block(states, mask)
        return self.out_norm(self.project(self.norm(states)))


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
