"""One cross-attention layer from a square of queries to every raster of tokens."""

from mmunify.errors import DataError
from mmunify.layers.attention_pool import AttentionPool
from mmunify.layers.rasters import join_frames, map_slots, slots_mask, split_frames
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("resampler")
class ResamplerAdapter(Adapter):
    """The resampler of Qwen-VL (https://arxiv.org/abs/2308.12966), which SEED-X (https://arxiv.org/abs/2404.14396)
    uses with 64 queries and 32 heads: one cross-attention layer of width D, every frame or tile for itself.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        num_queries: Q, slots of a frame or tile; a square number.
        num_heads: of the attention; None = one per 128 numbers of D.
        positions: 2-D sine-cosine positions on queries and keys, resized to the tokens' raster; false for tokens
            that form none (sound).

    Raises:
        UserError: `num_queries` is no square, or `num_heads` doesn't divide D.
    """

    def __init__(
        self, in_dim: int, out_dim: int, num_queries: int = 64, num_heads: int | None = None, positions: bool = True
    ) -> None:
        super().__init__()
        self.positions, self.num_queries = positions, num_queries
        self.pool = AttentionPool(in_dim, out_dim, num_queries, num_heads)

    def layout(self, layout: Layout) -> Layout:
        """A square of Q slots for every frame or tile; strings stay where they are."""
        return map_slots(layout, self.num_queries, self.pool.grid)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, F Q, D).

        Raises:
            DataError: positions are on and the features have no grid.
        """
        if self.positions and features.grid is None:
            message = f"a resampler with positions needs features with a grid; {features.tokens.shape[1]} tokens came"
            raise DataError(f"{message} without one (`positions: false` reads them as a set)")
        frames, num_frames = split_frames(features)
        grid = frames.grid if self.positions else None
        mask = slots_mask(frames, self.num_queries, num_frames)
        return join_frames(self.pool(frames.tokens, frames.mask, grid), mask, num_frames)
