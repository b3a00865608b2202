"""Blocks of neighbouring tokens become one wider token."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.layers.projector import projector
from mmunify.layers.rasters import from_raster, join_frames, map_frames, shrink_grid, split_frames, to_raster
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("pixel_shuffle")
class PixelShuffleAdapter(Adapter):
    """Space to depth and a projection: `factor` squared fewer tokens, as many times wider, none lost.

    Idefics3 (https://arxiv.org/abs/2408.12637) has `depth: 1, norm: false, bias: false`, InternVL
    (https://arxiv.org/abs/2404.16821) `depth: 2, norm: true`. Within a block the order is row, column, channel. A
    raster that is no multiple of the factor is filled up with zeros at its right and bottom.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        factor: rows and columns of a block.
        depth: number of linears, GELU between them.
        norm: layer norm of the wide tokens before the projection.
        bias: whether a single linear has one.

    Raises:
        UserError: a factor or a depth below 1.
    """

    def __init__(
        self, in_dim: int, out_dim: int, factor: int = 2, depth: int = 1, norm: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        if factor < 1 or depth < 1:
            raise UserError(f"pixel_shuffle needs factor and depth of at least 1, got {factor} and {depth}")
        wide = in_dim * factor**2
        self.factor = factor
        self.norm = nn.LayerNorm(wide) if norm else nn.Identity()
        self.project = projector(wide, *[out_dim] * depth)
        if depth == 1 and not bias:
            self.project = nn.Sequential(nn.Linear(wide, out_dim, bias=False))

    def layout(self, layout: Layout) -> Layout:
        """Every raster `factor` times smaller on both sides, rounded up; strings stay where they are."""
        return map_frames(layout, "pixel_shuffle", lambda grid: shrink_grid(grid, self.factor))

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, F N / factor^2, D); a block is real if one of its tokens is."""
        frames, num_frames = split_frames(features)
        wide = from_raster(self._merge(to_raster(frames, "pixel_shuffle")))
        return join_frames(self.project(self.norm(wide)), self._mask(frames), num_frames)

    def _merge(self, raster: Float[Tensor, "R E h w"]) -> Float[Tensor, "R _ _ _"]:
        rows, columns = raster.shape[2:]
        padded = F.pad(raster, (0, -columns % self.factor, 0, -rows % self.factor))
        return rearrange(padded, "m e (h a) (w b) -> m (a b e) h w", a=self.factor, b=self.factor)

    def _mask(self, frames: Features) -> Bool[Tensor, "R S"] | None:
        if frames.mask is None:
            return None
        real = to_raster(Features(tokens=frames.mask[..., None].float(), grid=frames.grid), "pixel_shuffle")
        return self._merge(real).amax(dim=1).flatten(1) > 0
