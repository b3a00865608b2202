"""A small U-Net over the cells of a picture that is told a raster of features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.layers.denoising import Known
from mmunify.layers.positions import sincos_1d
from mmunify.layers.sdpa import attend

GROUPS, HEAD_DIM = 8, 32
BESIDE = ("draft", "places")


class TimedBlock(nn.Module):
    """Two normalised convolutions beside the identity; the time scales and shifts what lies between them.

    Args:
        dim_in, dim: channels that come in and go out, multiples of 8.
        time_dim: width of what is told of the time; None = nothing is.
    """

    def __init__(self, dim_in: int, dim: int, time_dim: int | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, dim_in), nn.SiLU(), nn.Conv2d(dim_in, dim, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, dim)
        self.second = nn.Sequential(nn.SiLU(), zeroed(nn.Conv2d(dim, dim, 3, padding=1)))
        self.time = nn.Linear(time_dim, 2 * dim) if time_dim else None
        self.short = nn.Conv2d(dim_in, dim, 1) if dim_in != dim else nn.Identity()

    def forward(
        self, raster: Float[Tensor, "K D h w"], time: Float[Tensor, "K T"] | None = None
    ) -> Float[Tensor, "K _ h w"]:
        """Same rows and columns."""
        inner = self.norm(self.first(raster))
        if self.time is not None:
            scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return self.short(raster) + self.second(inner)


class PlacedAttention(nn.Module):
    """Cells attend to a raster of features; every head starts with a look around its own place, of its own width.

    Without that start, cells would have to find out first which of all features are their own.

    Args:
        dim: channels of the cells, a multiple of `HEAD_DIM`.
        memory_dim: width of the features.
    """

    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.norm = nn.GroupNorm(GROUPS, dim)
        self.query, self.key = nn.Conv2d(dim, dim, 1), nn.Linear(memory_dim, dim)
        self.value, self.output = nn.Linear(memory_dim, dim), nn.Conv2d(dim, dim, 1)
        self.nearness = nn.Parameter(torch.linspace(1.0, -2.0, self.num_heads))

    def forward(self, cells: Float[Tensor, "K D h w"], memory: Float[Tensor, "K N C"]) -> Float[Tensor, "K D h w"]:
        """The cells, with what they found."""
        query = self.query(self.norm(cells)).flatten(2).transpose(1, 2)
        q, k, v = (
            x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, self.key(memory), self.value(memory))
        )
        side, grid = int(memory.shape[1] ** 0.5), (cells.shape[2], cells.shape[3])
        bias = -self.nearness.exp()[:, None, None] * squared_distances(grid, (side, side), cells)
        found = attend(q, k, v, bias.to(q.dtype)[None])
        return cells + self.output(found.transpose(2, 3).flatten(1, 2).unflatten(2, grid))


class RasterUNet(nn.Module):
    """Levels of half the side each, with one block on the way down and one (two at the top) on the way up.

    What it is told (`Known`): "near0", "near1" ... [K D h w] at the size of every level, and "states" [K N C] to attend
    to; "draft", "places" and "source" [K c h w] beside the sample.

    Args:
        channels: of the sample and of the answer.
        beside: input channels of the draft and the places.
        source: of a source picture; 0 = there is none. Their weights start at zero: at first they change nothing.
        dims: channels of the levels, multiples of `HEAD_DIM`.
        states_dim: width of the features to attend to; None = no attention.
        keeps: a second answer, behind the first and zero at first: how much of the source stays, for every number.
    """

    def __init__(
        self,
        channels: int,
        beside: int,
        source: int,
        dims: Sequence[int],
        states_dim: int | None = None,
        keeps: bool = False,
    ) -> None:
        super().__init__()
        first, last, wide = dims[0], dims[-1], 4 * dims[0]
        self.time = nn.Sequential(nn.Linear(first, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.conv_in = nn.Conv2d(channels + beside, first, 3, padding=1)
        self.source_in = zeroed(nn.Conv2d(source, first, 3, padding=1, bias=False)) if source else None
        self.down = nn.ModuleList(TimedBlock(dim, dim, wide) for dim in dims)
        self.middle = TimedBlock(last, last, wide)
        self.up = nn.ModuleList(TimedBlock(2 * dim, dim, wide) for dim in dims)
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(dims, dims[1:], strict=False)
        )
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in zip(dims, dims[1:], strict=False))
        self.last = TimedBlock(first, first, wide)
        self.conv_out = _answering(first, channels)
        self.source_out = _answering(first, channels) if keeps else None
        attends = dims if states_dim else ()
        self.look_down, self.look_up = (
            nn.ModuleList(PlacedAttention(dim, states_dim or 0) for dim in attends) for _ in range(2)
        )

    def forward(
        self, sample: Float[Tensor, "K c h w"], time: Float[Tensor, "K"] | Tensor, known: Known
    ) -> Float[Tensor, "K a h w"]:
        """What the network answers for a noisy sample; a = c, or 2 c where it also says what it keeps."""
        told = self.time(sincos_1d(time.to(sample.dtype), self.conv_in.out_channels))
        skips = self._descend(self._enter(sample, known), told, known)
        cells = self.middle(skips[-1], told)
        for level in reversed(range(len(self.up))):
            cells = self.up[level](torch.cat([cells, skips[level]], dim=1), told)
            cells = _look(self.look_up, level, cells, known)
            cells = self.grow[level - 1](F.interpolate(cells, scale_factor=2.0)) if level else cells
        cells = self.last(cells, told)
        answer = self.conv_out(cells)
        return answer if self.source_out is None else torch.cat([answer, self.source_out(cells)], dim=1)

    def _enter(self, sample: Tensor, known: Known) -> Tensor:
        shown = [sample, *(known[name].to(sample.dtype) for name in BESIDE if name in known)]
        cells = self.conv_in(torch.cat(shown, dim=1))
        if self.source_in is not None:
            cells = cells + self.source_in(known["source"].to(sample.dtype))
        return cells

    def _descend(self, cells: Tensor, told: Tensor, known: Known) -> list[Tensor]:
        """What every level leaves for the way up."""
        skips = []
        for level, block in enumerate(self.down):
            cells = self.shrink[level - 1](cells) if level else cells
            cells = cells + known[f"near{level}"] if f"near{level}" in known else cells
            cells = _look(self.look_down, level, block(cells, told), known)
            skips.append(cells)
        return skips


class NearRasters(nn.Module):
    """A raster of features as one raster per level of a U-Net, at the level's size.

    A feature becomes 2 x 2 cells that differ where a level is finer: copies would tell a convolution nothing of where
    inside the feature a cell lies.

    Args:
        in_dim: width of the features.
        dims: channels of the levels.
        sides: rows of the levels.
        depth: blocks at the raster's own size.
        silent: whether all rasters are zero at first.
    """

    def __init__(
        self, in_dim: int, dims: Sequence[int], sides: Sequence[int], depth: int = 2, silent: bool = False
    ) -> None:
        super().__init__()
        dim, self.sides = dims[-1], tuple(sides)
        self.enter = nn.Conv2d(in_dim, dim, 1)
        self.blocks = nn.Sequential(*(TimedBlock(dim, dim) for _ in range(depth)))
        leave = [nn.Conv2d(dim, 4 * each, 1) for each in dims]
        self.leave = nn.ModuleList(map(zeroed, leave) if silent else leave)

    def forward(self, raster: Float[Tensor, "K E h w"]) -> list[Tensor]:
        """[K D side side] per level."""
        trunk = self.blocks(self.enter(raster))
        pairs = zip(self.leave, self.sides, strict=True)
        return [_fit(F.pixel_shuffle(leave(trunk), 2), side) for leave, side in pairs]


def _answering(dim: int, channels: int) -> nn.Sequential:
    """From cells to an answer, zero at first."""
    return nn.Sequential(nn.GroupNorm(GROUPS, dim), nn.SiLU(), zeroed(nn.Conv2d(dim, channels, 3, padding=1)))


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, answering zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def squared_distances(grid: tuple[int, int], raster: tuple[int, int], like: Tensor) -> Float[Tensor, "n m"]:
    """Between the middles of cells and of features over the same picture, in rows of the raster."""

    def middles(rows: int, columns: int) -> Tensor:
        down, across = (torch.arange(n, device=like.device) + 0.5 for n in (rows, columns))
        return torch.cartesian_prod(down * (raster[0] / rows), across * (raster[1] / columns))

    return torch.cdist(middles(*grid), middles(*raster)).square()


def _look(attentions: nn.ModuleList, level: int, cells: Tensor, known: Known) -> Tensor:
    return attentions[level](cells, known["states"]) if len(attentions) else cells


def _fit(raster: Float[Tensor, "K D h w"], side: int) -> Float[Tensor, "K D side side"]:
    if raster.shape[2] > side:
        return F.adaptive_avg_pool2d(raster, side)
    return F.interpolate(raster, size=(side, side))
