"""An encoder-decoder transformer from hidden states to the tokens that a text encoder would give."""

from mmunify.layers.text_mapper import TextMapper
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("mapper")
class MapperAdapter(Adapter):
    """GILLMapper (https://arxiv.org/abs/2305.17216), which NExT-GPT (https://arxiv.org/abs/2309.05519) uses too.

    An encoder reads the tokens, a decoder of learned queries reads the encoder; see `TextMapper`.

    Args:
        in_dim: width of what it reads (given by the composer).
        out_dim: width D of its answer (given by the composer).
        num_queries: Q, tokens of the answer (77 for Stable Diffusion's text encoder, 1 for AudioLDM's).
        dim: width inside.
        depth: layers of the encoder, and as many of the decoder.
        num_heads: of every attention.
        hidden_dim: inside the feed-forwards; None = 4 dim.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 77,
        dim: int = 512,
        depth: int = 4,
        num_heads: int = 4,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.mapper = TextMapper(in_dim, out_dim, num_queries, dim, depth, num_heads, hidden_dim or 4 * dim)

    def layout(self, layout: Layout) -> Layout:
        """Q slots, whatever it reads."""
        return Layout.of(self.num_queries)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, Q, D)."""
        return Embeds(tokens=self.mapper(features.tokens, features.mask))
