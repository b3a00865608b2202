"""Frames of a clip, segments of a sound: encoded one by one, then side by side."""

from jaxtyping import Float
from torch import Tensor

from mmunify.types import Features


def join_moments(features: Features, num_items: int, num_moments: int) -> Features:
    """Features of M F frames, item by item, -> of M items of F N tokens; the grid stays that of one frame.

    `pooled` becomes the mean over an item's frames.
    """
    pooled = features.pooled
    return Features(
        tokens=_join(features.tokens, num_items, num_moments),
        mask=None if features.mask is None else features.mask.reshape(num_items, num_moments * features.mask.shape[1]),
        grid=features.grid,
        pooled=None if pooled is None else pooled.unflatten(0, (num_items, num_moments)).mean(dim=1),
        layers={index: _join(states, num_items, num_moments) for index, states in features.layers.items()},
        num_frames=num_moments,
    )


def _join(tokens: Float[Tensor, "R N E"], num_items: int, num_moments: int) -> Float[Tensor, "M n E"]:
    return tokens.reshape(num_items, num_moments * tokens.shape[1], tokens.shape[2])


def tubes(tokens: Float[Tensor, "M n E"], grid: tuple[int, int]) -> Float[Tensor, "M N W"]:
    """Tokens frame by frame -> the N places of a frame, each with its features in all frames side by side."""
    places = grid[0] * grid[1]
    return tokens.unflatten(1, (-1, places)).transpose(1, 2).flatten(2)
