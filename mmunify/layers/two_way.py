"""A transformer between a few tokens and a raster, in both directions."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.feed_forward import FeedForward
from mmunify.layers.sdpa import attend


class TwoWayTransformer(nn.Module):
    """SAM's decoder (https://arxiv.org/abs/2304.02643): tokens read the raster, then the raster reads the tokens.

    Args:
        dim: width of tokens and raster.
        depth: number of blocks.
        num_heads: of every attention.
        hidden_dim: inside the feed-forwards.
        shrink: attentions between the two work at dim / shrink.
    """

    def __init__(self, dim: int, depth: int = 2, num_heads: int = 8, hidden_dim: int = 2048, shrink: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TwoWayBlock(dim, num_heads, hidden_dim, shrink, placed=bool(i)) for i in range(depth)
        )
        self.attention = PlacedAttention(dim, num_heads, shrink)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: Float[Tensor, "K Q D"], raster: Float[Tensor, "K N D"], places: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, "K Q D"], Float[Tensor, "K N D"]]:
        """Both, after having read each other. The tokens' places are the tokens themselves, as they came."""
        states = tokens
        for block in self.blocks:
            states, raster = block(states, raster, tokens, places)
        states = states + self.attention(states + tokens, raster + places, raster)
        return self.norm(states), raster


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens from the raster, feed-forward, raster from the tokens; post-norm.

    Args:
        dim: width of tokens and raster.
        num_heads: of every attention.
        hidden_dim: inside the feed-forward.
        shrink: see `TwoWayTransformer`.
        placed: False in the first block, where the tokens are their own places.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, shrink: int, placed: bool) -> None:
        super().__init__()
        self.placed = placed
        self.among_tokens = PlacedAttention(dim, num_heads)
        self.from_raster = PlacedAttention(dim, num_heads, shrink)
        self.feed_forward = FeedForward(dim, hidden_dim, activation="relu")
        self.from_tokens = PlacedAttention(dim, num_heads, shrink)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))

    def forward(
        self,
        tokens: Float[Tensor, "K Q D"],
        raster: Float[Tensor, "K N D"],
        token_places: Float[Tensor, "K Q D"],
        places: Float[Tensor, "N D"],
    ) -> tuple[Float[Tensor, "K Q D"], Float[Tensor, "K N D"]]:
        """One block."""
        placed = tokens + token_places if self.placed else tokens
        among = self.among_tokens(placed, placed, tokens)
        tokens = self.norms[0](tokens + among if self.placed else among)
        tokens = self.norms[1](tokens + self.from_raster(tokens + token_places, raster + places, raster))
        tokens = self.norms[2](tokens + self.feed_forward(tokens))
        read = self.from_tokens(raster + places, tokens + token_places, tokens)
        return tokens, self.norms[3](raster + read)


class PlacedAttention(nn.Module):
    """Multi-head attention whose keys and values are made of different states.

    Args:
        dim: width in and out.
        num_heads: number of heads.
        shrink: it works at dim / shrink.
    """

    def __init__(self, dim: int, num_heads: int, shrink: int = 1) -> None:
        super().__init__()
        inner, self.num_heads = dim // shrink, num_heads
        self.query, self.key, self.value = (nn.Linear(dim, inner) for _ in range(3))
        self.output = nn.Linear(inner, dim)

    def forward(
        self, queries: Float[Tensor, "K Q D"], keys: Float[Tensor, "K N D"], values: Float[Tensor, "K N D"]
    ) -> Float[Tensor, "K Q D"]:
        """Attend."""
        q, k, v = (
            rearrange(layer(x), "k n (h d) -> k h n d", h=self.num_heads)
            for layer, x in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        return self.output(rearrange(attend(q, k, v), "k h n d -> k n (h d)"))
