"""Multi-head attention from one sequence to another."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.sdpa import attend


class CrossAttention(nn.Module):
    """Queries attend to a memory of another width; with the queries as memory it is self-attention.

    Args:
        dim: width of the queries and of the answer.
        memory_dim: width of what is attended to; None = `dim`.
        num_heads: number of heads.
        head_dim: width of a head; None = dim / num_heads.
        bias: whether the four projections have one.
        dropout: of the attention weights.

    Raises:
        UserError: `dim` is no multiple of `num_heads` and no `head_dim` is given.
    """

    def __init__(
        self,
        dim: int,
        memory_dim: int | None = None,
        num_heads: int = 8,
        head_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head_dim is None and dim % num_heads:
            raise UserError(f"dim={dim} is no multiple of num_heads={num_heads}; change one of them or give head_dim")
        memory_dim, inner = memory_dim or dim, num_heads * (head_dim or dim // num_heads)
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(dim, inner, bias=bias)
        self.key = nn.Linear(memory_dim, inner, bias=bias)
        self.value = nn.Linear(memory_dim, inner, bias=bias)
        self.output = nn.Linear(inner, dim, bias=bias)

    def forward(
        self,
        queries: Float[Tensor, "M Q D"],
        memory: Float[Tensor, "M N K"],
        mask: Bool[Tensor, "M N"] | None = None,
        places: Float[Tensor, "N K"] | None = None,
    ) -> Float[Tensor, "M Q D"]:
        """Attend. `mask` is True where the memory is real; an item without any real position gets zeros plus bias.

        `places` are added to the memory where keys are made of it, not where values are.
        """
        keys = memory if places is None else memory + places
        q, k, v = (
            rearrange(x, "m n (h d) -> m h n d", h=self.num_heads)
            for x in (self.query(queries), self.key(keys), self.value(memory))
        )
        dropout = self.dropout if self.training else 0.0
        if mask is None:
            states = attend(q, k, v, dropout=dropout)
        else:  # kernels disagree on rows that see nothing (some answer NaN): let them see all, then drop the answer
            real = mask.any(dim=1, keepdim=True)
            states = attend(q, k, v, (mask | ~real)[:, None, None], dropout)
            states = states * real[:, :, None, None]
        return self.output(rearrange(states, "m h n d -> m n (h d)"))
