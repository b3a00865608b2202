"""Point clouds as groups of neighbours."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PointGroups(nn.Module):
    """Tokens of a point cloud: spread-out centres, each with its nearest points (https://arxiv.org/abs/1706.02413).

    A point is (x, y, z) and further channels (colours). Within a group, places are relative to the centre; a small
    network reads every point, and the maximum over the group is its token.

    Args:
        dim: width of the tokens.
        channels: numbers per point.
        num_groups: G, tokens of a cloud.
        group_size: points of a group.
    """

    def __init__(self, dim: int, channels: int = 6, num_groups: int = 512, group_size: int = 32) -> None:
        super().__init__()
        self.num_groups, self.group_size = num_groups, group_size
        self.network = nn.Sequential(nn.Linear(channels, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim))
        self.places = nn.Linear(3, dim)

    def forward(self, points: Float[Tensor, "M P c"]) -> Float[Tensor, "M G dim"]:
        """P points per cloud -> one token per group."""
        places = points[..., :3]
        centers = _rows(places, spread(places, self.num_groups)[..., None])[:, :, 0]
        nearest = torch.cdist(centers, places).topk(self.group_size, dim=2, largest=False).indices
        groups = _rows(points, nearest)
        relative = torch.cat([groups[..., :3] - centers[:, :, None], groups[..., 3:]], dim=-1)
        return self.network(relative).amax(dim=2) + self.places(centers)


def spread(places: Float[Tensor, "M P 3"], count: int) -> Int[Tensor, "M count"]:
    """Farthest point sampling: each point is the one farthest from those before it; the first point is point 0."""
    chosen = torch.zeros(len(places), count, dtype=torch.long, device=places.device)
    distance = torch.full(places.shape[:2], torch.inf, device=places.device, dtype=places.dtype)
    rows = torch.arange(len(places), device=places.device)
    for step in range(1, count):
        last = places[rows, chosen[:, step - 1]]
        distance = torch.minimum(distance, (places - last[:, None]).square().sum(-1))
        chosen[:, step] = distance.argmax(dim=1)
    return chosen


def _rows(points: Float[Tensor, "M P c"], index: Int[Tensor, "M G k"]) -> Float[Tensor, "M G k c"]:
    clouds = torch.arange(len(points), device=points.device)[:, None, None]
    return points[clouds, index]
