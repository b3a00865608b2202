"""States of a language model as the condition of a diffusion transformer."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.layers.llama import LlamaBlock
from mmunify.layers.projector import projector

EPS = 1e-5


class FlowConnector(nn.Module):
    """Blocks in which all states see each other, then linear, GELU, linear, and a norm.

    The order of MetaQuery (https://arxiv.org/abs/2504.06256): encoder, then projection.

    Args:
        in_dim: width of the states.
        out_dim: width of the condition.
        depth: number of blocks (MetaQuery: 24; BLIP3-o's open Sana decoder: 0).
        num_heads: of the blocks; None = one per 64 numbers of `in_dim`.
        hidden_dim: between the linears; None = `out_dim`.
        gain: weights of the norm at the start; Sana was trained on captions of about sqrt(5.5).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        depth: int = 0,
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        gain: float = 5.5**0.5,
    ) -> None:
        super().__init__()
        heads = num_heads or max(1, in_dim // 64)
        self.blocks = nn.ModuleList(LlamaBlock(in_dim, heads) for _ in range(depth))
        self.project = projector(in_dim, hidden_dim or out_dim, out_dim)
        self.norm = nn.RMSNorm(out_dim, eps=EPS)
        nn.init.constant_(self.norm.weight, gain)

    def forward(
        self, states: Float[Tensor, "K Q E"], mask: Bool[Tensor, "K Q"] | None = None
    ) -> Float[Tensor, "K Q C"]:
        """States -> condition; `mask` is True where a state is real."""
        for block in self.blocks:
            states = block(states, mask)
        return self.norm(self.project(states))
