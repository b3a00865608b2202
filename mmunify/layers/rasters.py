"""Items of several rasters of one size: the frames of a clip, the tiles of a picture.

`Features.grid` is the raster of *one* frame or tile. Features of F of them hold F * rows * columns tokens, frame by
frame, each in raster order; items with fewer of them are filled up with masked tokens. Frames of tokens without a
raster are counted by `num_frames`. Where the runs of a layout share no raster (a picture beside a map of another size),
the features come as one sequence without a grid.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.types import Embeds, Features, Layout, Run

Grid = tuple[int, int]


def split_frames(features: Features) -> tuple[Features, int]:
    """Every frame or tile as an item of its own: tokens (M, F N, E) -> (M F, N, E), and F.

    Raises:
        DataError: the tokens are no whole number of rasters.
    """
    num_tokens, cells = features.tokens.shape[1], tokens_per_frame(features)
    if num_tokens == cells:
        return features, 1
    if num_tokens % cells or not num_tokens:
        raise DataError(
            f"{num_tokens} tokens per item are no whole number of rasters of {features.grid} = {cells} cells; "
            f"an encoder's grid is that of one frame or tile"
        )
    tokens = features.tokens.reshape(-1, cells, features.tokens.shape[2])
    mask = None if features.mask is None else features.mask.reshape(-1, cells)
    return Features(tokens=tokens, mask=mask, grid=features.grid), num_tokens // cells


def tokens_per_frame(features: Features) -> int:
    """Cells of one raster; without a grid, the share of a frame or segment."""
    if features.grid is not None:
        return features.grid[0] * features.grid[1]
    return features.tokens.shape[1] // (features.num_frames or 1)


def join_frames(tokens: Float[Tensor, "R S D"], mask: Bool[Tensor, "R S"] | None, num_frames: int) -> Embeds:
    """Frames that were items of their own, side by side again: (M F, S, D) -> (M, F S, D)."""
    if num_frames == 1:
        return Embeds(tokens=tokens, mask=mask)
    slots = num_frames * tokens.shape[1]
    joined = None if mask is None else mask.reshape(-1, slots)
    return Embeds(tokens=tokens.reshape(-1, slots, tokens.shape[2]), mask=joined, num_frames=num_frames)


def slots_mask(frames: Features, num_slots: int, num_frames: int) -> Bool[Tensor, "R S"] | None:
    """Which slots are real where every frame gets `num_slots`: all of a frame's that has a real token, or none.

    An item of one frame always has its slots, whatever its mask: its layout promised them.
    """
    if frames.mask is None or num_frames == 1:
        return None
    return frames.mask.any(dim=1, keepdim=True).expand(-1, num_slots)


def to_raster(features: Features, part: str) -> Float[Tensor, "R E rows columns"]:
    """Tokens of single frames as pictures, masked ones as zeros.

    Raises:
        DataError: the features have no grid.
    """
    if features.grid is None:
        message = f"{part} needs features with a grid; {features.tokens.shape[1]} tokens came without one"
        raise DataError(f"{message} (a class token kept in front? `drop_class: true`)")
    tokens = features.tokens
    if features.mask is not None:  # where, not times: noise in masked tokens may be infinite
        tokens = torch.where(features.mask[..., None], tokens, 0.0)
    return tokens.transpose(1, 2).unflatten(2, features.grid)


def from_raster(pictures: Float[Tensor, "R E rows columns"]) -> Float[Tensor, "R N E"]:
    """The inverse of `to_raster`."""
    return pictures.flatten(2).transpose(1, 2)


def resize_table(table: Float[Tensor, "n E"], grid: Grid, size: Grid) -> Float[Tensor, "m E"]:
    """A table of positions on a raster, resized to another one (bicubic, as in ViTs)."""
    if grid == size:
        return table
    picture = table.float().T.unflatten(1, grid)[None]
    resized = F.interpolate(picture, size=size, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T.to(table.dtype)


def map_frames(layout: Layout, part: str, change: Callable[[Grid], Grid]) -> Layout:
    """The layout with every raster of slots replaced by that of another size; strings stay where they are.

    Raises:
        UserError: a run of slots has no grid.
    """
    return map_runs(layout, lambda run: _change_run(run, part, change))


def map_runs(layout: Layout, change: Callable[[Run], Run]) -> Layout:
    """The layout with every run of slots changed; strings stay. Runs that share no raster are one run first."""
    slots = [run for run in layout.runs if run.slots]
    shared = slots and slots[0].grid is not None and all(run.grid == slots[0].grid for run in slots)
    if len(slots) > 1 and not shared:
        layout = Layout.of(layout.num_slots)
    return Layout(runs=tuple(change(run) if run.slots else run for run in layout.runs))


def shrink_grid(grid: Grid, factor: int) -> Grid:
    """A raster of blocks of factor x factor cells; blocks at the edges may be incomplete."""
    return -(-grid[0] // factor), -(-grid[1] // factor)


def count_frames(run: Run) -> int:
    """Frames or tiles in a run of slots."""
    return run.num_frames if run.grid is None else run.slots // (run.grid[0] * run.grid[1])


def map_slots(layout: Layout, num_slots: int, grid: Grid | None = None) -> Layout:
    """The layout with `num_slots` for every frame or tile, in a raster of `grid` if they form one."""
    return map_runs(layout, lambda run: _fill_frames(run, num_slots, grid))


def repeat_layout(layout: Layout, times: int) -> Layout:
    """The layout of `times` frames or segments: rasters stay apart, tokens without a raster are one run of frames."""
    if all(run.grid is None and not run.token for run in layout.runs):
        return Layout(runs=(Run(slots=times * layout.num_slots, num_frames=times),))
    return replace(layout, runs=layout.runs * times)


def _fill_frames(run: Run, num_slots: int, grid: Grid | None) -> Run:
    count = count_frames(run)
    return replace(run, slots=count * num_slots, grid=grid, num_frames=1 if grid else count)


def _change_run(run: Run, part: str, change: Callable[[Grid], Grid]) -> Run:
    if run.grid is None:
        raise UserError(
            f"{part} needs an encoder whose tokens form a raster; a run of {run.slots} of them has no grid of its own "
            f"(a class token kept in front? `drop_class: true`)"
        )
    rows, columns = change(run.grid)
    return replace(run, slots=count_frames(run) * rows * columns, grid=(rows, columns))
