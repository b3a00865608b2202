"""One vector per region from the features of a picture."""

from collections.abc import Sequence
from math import gcd

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NUM_FUSIONS = 5
ROI_SIZE = 14
SAMPLING_RATIO = 2


class MaskPool(nn.Module):
    """The mean of the features under a mask (Osprey, https://arxiv.org/abs/2312.10032).

    Args:
        soft: weigh each cell by the share of it that the mask covers, so that small regions count; False = as
            published: the mask is resized to the raster (bilinear) and every cell above zero counts alike, and
            a region between the samples gives zeros.
    """

    def __init__(self, soft: bool = True) -> None:
        super().__init__()
        self.soft = soft

    def forward(
        self, raster: Float[Tensor, "I E h w"], items: Int[Tensor, "M"], masks: Float[Tensor, "M H W"]
    ) -> Float[Tensor, "M E"]:
        """Features of I pictures, M regions with their pictures -> one vector each."""
        size = (raster.shape[2], raster.shape[3])
        if self.soft:
            weights = F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]
        else:
            weights = (F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0).float()
        weights = weights.to(raster.dtype)
        total = torch.einsum("mehw,mhw->me", raster[items], weights)
        return total / (weights.sum(dim=(1, 2))[:, None] + 1e-8)


class LevelMaskPool(nn.Module):
    """Means under masks, of several layers through a linear each and summed, then a three-layer MLP.

    Args:
        in_dim: width of the layers.
        dim: width of the answer.
        num_levels: of one layer alone the mean goes straight into the MLP.
        soft: see `MaskPool`.
    """

    def __init__(self, in_dim: int, dim: int, num_levels: int = 1, soft: bool = True) -> None:
        super().__init__()
        self.pool = MaskPool(soft)
        several = num_levels > 1
        self.levels = nn.ModuleList(nn.Linear(in_dim, dim) if several else nn.Identity() for _ in range(num_levels))
        self.project = relu_mlp(dim if several else in_dim, dim, dim, dim)

    def forward(
        self, rasters: Sequence[Float[Tensor, "I E h w"]], items: Int[Tensor, "M"], masks: Float[Tensor, "M H W"]
    ) -> Float[Tensor, "M dim"]:
        """Rasters of L layers, M masks with their pictures -> one vector each."""
        pooled = [level(self.pool(raster, items, masks)) for level, raster in zip(self.levels, rasters, strict=True)]
        return self.project(torch.stack(pooled).sum(0))


class RoIPyramid(nn.Module):
    """Boxes read from several layers (GPT4RoI, https://arxiv.org/abs/2307.03601; GLaMM, https://arxiv.org/abs/2311.03356).

    The layers, shallow to deep, become a pyramid: of L layers the first is made 2^(L-1) times larger, the last stays.
    Coordinates are appended, neighbouring levels exchange a quarter of their channels five times, and RoIAlign reads
    14 x 14 cells of each level; their sum goes through one linear.

    Args:
        in_dim: width of the layers.
        dim: width of the answer, a multiple of 4.
        num_levels: L.
        box_scale: what a box's 0..1 is multiplied with, in sides of the picture. GLaMM's released weights were trained
            with 224 / 336: pixels of a 224 picture on features of a 336 one, so that boxes reach two thirds of it.
    """

    def __init__(self, in_dim: int, dim: int, num_levels: int = 4, box_scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.box_scale = dim, box_scale
        self.enter = nn.ModuleList(nn.Conv2d(in_dim + 2, dim, 1) for _ in range(num_levels))
        self.fusions = nn.ModuleList(_fusion(dim) for _ in range(NUM_FUSIONS))
        self.levels = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(num_levels))
        self.flatten = nn.Linear(dim * ROI_SIZE**2, dim)

    def forward(
        self, rasters: Sequence[Float[Tensor, "I E h w"]], items: Int[Tensor, "M"], boxes: Float[Tensor, "M 4"]
    ) -> Float[Tensor, "M dim"]:
        """Rasters of L layers, M boxes with their pictures -> one vector each."""
        levels = [_enlarged(raster, len(rasters) - 1 - i) for i, raster in enumerate(rasters)]
        states = [enter(_with_coordinates(level)) for enter, level in zip(self.enter, levels, strict=True)]
        for fusion in self.fusions:
            states = [fusion(_exchange(states, i)) for i in range(len(states))]
        cells = [align_boxes(state, items, boxes * self.box_scale) for state in states]
        total = torch.stack([level(cell) for level, cell in zip(self.levels, cells, strict=True)]).sum(0)
        return self.flatten(F.relu(total).flatten(1))


def relu_mlp(*widths: int) -> nn.Sequential:
    """Linears of these widths with ReLU between."""
    layers = [layer for pair in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def align_boxes(
    raster: Float[Tensor, "I E h w"], items: Int[Tensor, "M"], boxes: Float[Tensor, "M 4"], size: int = ROI_SIZE
) -> Float[Tensor, "M E size size"]:
    """RoIAlign (https://arxiv.org/abs/1703.06870) of boxes in 0..1, two samples per cell each way."""
    from torchvision.ops import roi_align

    height, width = raster.shape[-2:]
    corners = boxes.to(raster.dtype) * raster.new_tensor([width, height, width, height])
    rows = torch.cat([items[:, None].to(raster.dtype), corners], dim=1)
    return roi_align(raster, rows, size, sampling_ratio=SAMPLING_RATIO, aligned=True)


def _fusion(dim: int) -> nn.Sequential:
    conv = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(gcd(64, dim), dim), nn.ReLU())


def _enlarged(raster: Float[Tensor, "I E h w"], doublings: int) -> Float[Tensor, "I E a b"]:
    size = [side * 2**doublings for side in raster.shape[-2:]]
    return F.interpolate(raster, size, mode="bilinear", align_corners=True)


def _with_coordinates(raster: Float[Tensor, "I E h w"]) -> Float[Tensor, "I e h w"]:
    """Two more channels: x and y in -1..1."""
    height, width = raster.shape[-2:]
    down = torch.linspace(-1, 1, height, device=raster.device, dtype=raster.dtype)
    across = torch.linspace(-1, 1, width, device=raster.device, dtype=raster.dtype)
    places = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)])
    return torch.cat([raster, places.expand(len(raster), -1, -1, -1)], dim=1)


def _exchange(states: Sequence[Tensor], level: int) -> Float[Tensor, "I E a b"]:
    """A level's first half, a quarter of the level above and a quarter of the one below; at an end, of itself."""
    own, above, below = states[level], states[min(level + 1, len(states) - 1)], states[max(level - 1, 0)]
    half, quarter = own.shape[1] // 2, own.shape[1] // 4
    parts = [_resized(above[:, half : half + quarter], own), _resized(below[:, half + quarter :], own)]
    return torch.cat([own[:, :half], *parts], dim=1)


def _resized(raster: Float[Tensor, "I e h w"], like: Float[Tensor, "I E a b"]) -> Float[Tensor, "I e a b"]:
    if raster.shape[-2:] == like.shape[-2:]:
        return raster
    return F.interpolate(raster, like.shape[-2:], mode="bilinear", align_corners=True)
