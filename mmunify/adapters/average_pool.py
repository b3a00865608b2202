"""Means of tokens, then a projection."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.layers.pooling import masked_mean, masked_pool
from mmunify.layers.projector import projector
from mmunify.layers.rasters import (
    count_frames,
    from_raster,
    join_frames,
    map_frames,
    map_runs,
    shrink_grid,
    split_frames,
    to_raster,
)
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout, Run


@ADAPTERS.register("average_pool")
class AveragePoolAdapter(Adapter):
    """Averages over real tokens, then linears. What is averaged:

    - "raster": windows of kernel x kernel (Emu2, https://arxiv.org/abs/2312.13286; LLaVA-NeXT-Video, Gemma-3);
    - "sequence": `kernel` tokens that follow each other, within a frame (SEED-X, https://arxiv.org/abs/2404.14396);
    - "frames": the same place in all frames of an item (OneLLM, https://arxiv.org/abs/2312.03700);
    - "all": everything: one slot per item.

    Windows at an edge that they don't fill average what is there.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        over: see above.
        kernel: size of a window; without meaning for "frames" and "all".
        depth: number of linears, GELU between them.
        hidden_dim: width between them; None = D.

    Raises:
        UserError: a kernel or a depth below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        over: Literal["raster", "sequence", "frames", "all"] = "raster",
        kernel: int = 2,
        depth: int = 1,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        if kernel < 1 or depth < 1:
            raise UserError(f"average_pool needs kernel and depth of at least 1, got {kernel} and {depth}")
        self.over, self.kernel = over, kernel
        self.project = projector(in_dim, *[hidden_dim or out_dim] * (depth - 1), out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Fewer slots; strings stay where they are as long as there are frames or tiles between them."""
        return LAYOUTS[self.over](layout, self.kernel)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, F N, E) -> (M, S, D); a slot is real if a token of its window is."""
        pooled = POOLS[self.over](features, self.kernel)
        return Embeds(tokens=self.project(pooled.tokens), mask=pooled.mask)


def _pool_raster(features: Features, kernel: int) -> Embeds:
    frames, num_frames = split_frames(features)
    raster = to_raster(replace(frames, mask=None), "average_pool")
    mask = None if frames.mask is None else frames.mask.unflatten(1, raster.shape[2:])
    pool = partial(F.avg_pool2d, kernel_size=kernel, ceil_mode=True)
    pooled, real = masked_pool(pool, raster, mask)
    return join_frames(from_raster(pooled), None if real is None else real.flatten(1), num_frames)


def _pool_sequence(features: Features, kernel: int) -> Embeds:
    frames, num_frames = split_frames(features)
    pool = partial(F.avg_pool1d, kernel_size=kernel, ceil_mode=True)
    pooled, real = masked_pool(pool, frames.tokens.transpose(1, 2), frames.mask)
    return join_frames(pooled.transpose(1, 2), real, num_frames)


def _pool_frames(features: Features, kernel: int) -> Embeds:
    frames, num_frames = split_frames(features)
    cells = frames.tokens.shape[1]
    by_place = _by_place(frames.tokens, num_frames)
    if frames.mask is None:
        return Embeds(tokens=masked_mean(by_place).unflatten(0, (-1, cells)))
    mask = _by_place(frames.mask[..., None], num_frames)[..., 0]
    real = mask.any(dim=1).unflatten(0, (-1, cells))
    return Embeds(tokens=masked_mean(by_place, mask).unflatten(0, (-1, cells)), mask=real)


def _by_place(values: Float[Tensor, "R N E"] | Bool[Tensor, "R N E"], num_frames: int) -> Tensor:
    """(M F, N, E) -> (M N, F, E)."""
    return values.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)


def _pool_all(features: Features, kernel: int) -> Embeds:
    return Embeds(tokens=masked_mean(features.tokens, features.mask, keepdim=True))


def _layout_raster(layout: Layout, kernel: int) -> Layout:
    return map_frames(layout, "average_pool", lambda grid: shrink_grid(grid, kernel))


def _layout_sequence(layout: Layout, kernel: int) -> Layout:
    return map_runs(layout, lambda run: _shorten(run, kernel))


def _shorten(run: Run, kernel: int) -> Run:
    count = count_frames(run)
    if run.grid is None:
        return replace(run, slots=count * -(-run.slots // count // kernel))
    rows, columns = run.grid
    grid = (rows, columns // kernel) if columns % kernel == 0 else None
    return replace(run, slots=count * -(-rows * columns // kernel), grid=grid, num_frames=1 if grid else count)


def _layout_frames(layout: Layout, kernel: int) -> Layout:
    first = next(run for run in map_runs(layout, lambda run: run).runs if run.slots)
    return Layout.of(first.slots // count_frames(first), first.grid)


def _layout_all(layout: Layout, kernel: int) -> Layout:
    return Layout.of(1)


POOLS: dict[str, Callable[[Features, int], Embeds]] = {
    "raster": _pool_raster,
    "sequence": _pool_sequence,
    "frames": _pool_frames,
    "all": _pool_all,
}
LAYOUTS: dict[str, Callable[[Layout, int], Layout]] = {
    "raster": _layout_raster,
    "sequence": _layout_sequence,
    "frames": _layout_frames,
    "all": _layout_all,
}
