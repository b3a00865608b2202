"""Regions of a medium as tokens: boxes, points, outlines and masks over another encoder's features."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmunify.errors import DataError, UserError
from mmunify.layers.region_frames import RegionPreprocess, split_rows
from mmunify.layers.region_pooling import LevelMaskPool, RoIPyramid, relu_mlp
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout


@ENCODERS.register("region")
class RegionEncoder(Encoder):
    """Region tokens from the features of the node that it reads `from:`.

    `pooling: mask` is Vitron's and Osprey's (https://arxiv.org/abs/2412.19806, https://arxiv.org/abs/2312.10032): mean
    under the mask, summed over levels, three-layer MLP. `pooling: roi_align` is GLaMM's and GPT4RoI's
    (https://arxiv.org/abs/2311.03356): a pyramid of levels, read by RoIAlign. A region of any form (box, points, mask)
    has both, a box and a mask.

    Args:
        in_dim: width of the features that it reads.
        dim: width of its tokens.
        pooling: what is read of the features, see above.
        levels: indices in `Features.layers` of the source, shallow to deep; none = its tokens alone.
        geometry: what else a token knows: "box" = two-layer MLP of the corners in 0..1 (Vitron, GLaMM), "mask" =
            three-layer MLP of the mask's raster (Osprey), "none".
        merge: "sum" of what was read and geometry, or two "tokens".
        medium: encoder node that it reads `from:`, or the kind of its media; regions are fitted as its pictures.
        mask_size: side of the mask's raster (Osprey: 112).
        box_scale: for roi_align, see `RoIPyramid` (GLaMM's released weights: 224 / 336 = 0.667).
        cells: for mask pooling, how cells count: by the "share" that the mask covers; "osprey" = all that the resized
            mask touches alike; "vitron" = so, too, and the mask is read with x as rows and y as columns, as the
            released weights were trained.

    Raises:
        UserError: tokens of two kinds asked for, with one kind alone.
    """

    cacheable = False

    def __init__(
        self,
        in_dim: int,
        dim: int = 1024,
        pooling: Literal["mask", "roi_align"] = "mask",
        levels: list[int] = [],
        geometry: Literal["box", "mask", "none"] = "box",
        merge: Literal["sum", "tokens"] = "sum",
        medium: str = "image",
        mask_size: int = 112,
        box_scale: float = 1.0,
        cells: Literal["share", "osprey", "vitron"] = "share",
    ) -> None:
        super().__init__()
        if merge == "tokens" and geometry == "none":
            raise UserError("merge: tokens needs a second token beside what is pooled; choose geometry: box or mask")
        self.levels, self.merge, self.cells = list(levels), merge, cells
        self.out_dim: int = dim
        self.preprocess: RegionPreprocess = RegionPreprocess(size=(mask_size, mask_size), medium=medium)
        depth = max(1, len(self.levels))
        self.pyramid = RoIPyramid(in_dim, dim, depth, box_scale) if pooling == "roi_align" else None
        self.mask_pool = None if self.pyramid else LevelMaskPool(in_dim, dim, depth, soft=cells == "share")
        widths = {"box": (4, dim // 2, dim), "mask": (mask_size**2, dim, dim, dim)}
        self.geometry, self.shape = geometry, relu_mlp(*widths[geometry]) if geometry in widths else None

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """One token, or two."""
        return Layout.of(2 if self.merge == "tokens" else 1)

    def forward(self, values: Float[Tensor, "M V"], context: Context) -> Features:
        """Rows of regions (see `RegionPreprocess`) -> tokens (M, 1 or 2, E).

        Raises:
            DataError: no source, or one that doesn't fit.
        """
        items, boxes, masks = split_rows(values, self.preprocess.size)
        items = items if context.source_items is None else context.source_items
        rasters = self._rasters(context, items)
        read = self._read(rasters, items, boxes, masks)
        if self.shape is None:
            return Features(tokens=read[:, None], pooled=read)
        known = self.shape(boxes if self.geometry == "box" else masks.flatten(1))
        tokens = (read + known)[:, None] if self.merge == "sum" else torch.stack([read, known], dim=1)
        return Features(tokens=tokens, pooled=read)

    def _rasters(self, context: Context, items: Int[Tensor, "M"]) -> list[Tensor]:
        """The source's levels as pictures (I, E, h, w)."""
        source = context.source
        if source is None:
            raise DataError("a region encoder reads another node's features: give it `from:` and media of that node")
        missing = [level for level in self.levels if level not in source.layers]
        if source.grid is None or source.tokens.shape[1] != source.grid[0] * source.grid[1] or missing:
            raise DataError(
                f"a region encoder reads one raster per item, and levels {self.levels}; its source has "
                f"{source.tokens.shape[1]} tokens, grid {source.grid}, layers {sorted(source.layers)}"
            )
        if len(items) and int(items.max()) >= len(source.tokens):
            raise DataError(f"a region of item {int(items.max())}, where its source has {len(source.tokens)} items")
        states = [source.layers[level] for level in self.levels] or [source.tokens]
        return [state.transpose(1, 2).unflatten(2, source.grid) for state in states]

    def _read(
        self, rasters: list[Tensor], items: Int[Tensor, "M"], boxes: Float[Tensor, "M 4"], masks: Float[Tensor, "M H W"]
    ) -> Float[Tensor, "M E"]:
        if self.pyramid is not None:
            return self.pyramid(rasters, items, boxes)
        assert self.mask_pool is not None
        return self.mask_pool(rasters, items, masks.transpose(1, 2) if self.cells == "vitron" else masks)
