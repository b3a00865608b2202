"""Tokenizers of OneLLM's shared encoder: each turns one kind of medium into tokens of the tower's width.

Sizes are those of the published code (https://arxiv.org/abs/2312.03700); arguments change them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import DataError, UserError
from mmunify.faults import unknown
from mmunify.layers.clips import ClipPreprocess
from mmunify.layers.numbers import NumbersPreprocess
from mmunify.layers.point_groups import PointGroups
from mmunify.layers.sounds import SoundPreprocess
from mmunify.types import Preprocess

AST_MEAN, AST_STD = -4.2677393, 4.5689974
"""Of the log filter banks of AudioSet, as AST and its followers normalise them; they divide by twice the deviation."""

RATE = 16_000

PICTURES = {"image": 1, "video": 5, "rgbd": 2, "rgbn": 2}
"""Kinds that the tower's own patches read, and how many pictures an item has (frames; colours and depth); they are
averaged."""


class Tokenizer(nn.Module):
    """Values of one shape -> N tokens with learned positions, a class token in front.

    Args:
        network: (M, *shape) -> (M, N, E).
        shape: of one item's values.
        num_tokens: N.
        dim: E.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], num_tokens: int, dim: int) -> None:
        super().__init__()
        self.network, self.shape, self.num_tokens = network, shape, num_tokens
        self.positions = nn.Parameter(torch.randn(num_tokens + 1, dim) * 0.02)

    def forward(self, values: Float[Tensor, "M ..."], first: Float[Tensor, "E"]) -> Float[Tensor, "M n E"]:
        """Values of this shape, whatever axes of length 1 stand between -> the class token `first`, then tokens.

        Raises:
            DataError: another shape.
        """
        count = values[0].numel() if len(values) else 0
        if count != torch.Size(self.shape).numel():
            raise DataError(f"items of shape {tuple(values.shape[1:])}, where this encoder reads {self.shape}")
        tokens = self.network(values.reshape(-1, *self.shape))
        return torch.cat([first.expand(len(tokens), 1, -1), tokens], dim=1) + self.positions


class _Audio(nn.Module):
    """Overlapping patches of a spectrogram (bins, frames)."""

    def __init__(self, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, kernel, stride=stride)

    def forward(self, values: Float[Tensor, "M bins frames"]) -> Float[Tensor, "M N E"]:
        return self.patches(values[:, None]).flatten(2).transpose(1, 2)


class _Signal(nn.Module):
    """Overlapping pieces of a signal of several channels."""

    def __init__(self, dim: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.pieces = nn.Conv1d(channels, dim, kernel, stride=stride)

    def forward(self, values: Float[Tensor, "M channels length"]) -> Float[Tensor, "M N E"]:
        return self.pieces(values).transpose(1, 2)


class _Voxels(nn.Module):
    """One linear, cut into a few tokens."""

    def __init__(self, dim: int, voxels: int, num_tokens: int) -> None:
        super().__init__()
        self.dim = dim
        self.spread = nn.Linear(voxels, dim * num_tokens)

    def forward(self, values: Float[Tensor, "M voxels"]) -> Float[Tensor, "M N E"]:
        return self.spread(values).unflatten(1, (self.dim, -1)).transpose(1, 2)


def _audio(dim: int, bins: int = 128, frames: int = 1024, kernel: int = 16, stride: int = 10) -> Tokenizer:
    count = _pieces(bins, kernel, stride) * _pieces(frames, kernel, stride)
    return Tokenizer(_Audio(dim, kernel, stride), (bins, frames), count, dim)


def _imu(dim: int, channels: int = 6, length: int = 400, kernel: int = 10, stride: int = 1) -> Tokenizer:
    network = _Signal(dim, channels, kernel, stride)
    return Tokenizer(network, (channels, length), _pieces(length, kernel, stride), dim)


def _fmri(dim: int, voxels: int = 15724, num_tokens: int = 8) -> Tokenizer:
    return Tokenizer(_Voxels(dim, voxels, num_tokens), (voxels,), num_tokens, dim)


def _point(
    dim: int, num_points: int = 8192, channels: int = 6, num_groups: int = 512, group_size: int = 32
) -> Tokenizer:
    network = PointGroups(dim, channels, num_groups, group_size)
    return Tokenizer(network, (num_points, channels), num_groups, dim)


TOKENIZERS = {"audio": _audio, "imu": _imu, "fmri": _fmri, "point": _point}


def make_tokenizer(kind: str, dim: int, arguments: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a kind; None for pictures, which the tower's own patches read.

    Raises:
        UserError: unknown kind or argument.
    """
    if kind in PICTURES and set(arguments) <= {"num_frames"}:
        return None
    if kind not in TOKENIZERS:
        raise UserError(f"the universal encoder has {unknown('tokenizer', kind, [*PICTURES, *TOKENIZERS])}")
    try:
        return TOKENIZERS[kind](dim, **arguments)
    except TypeError as error:
        raise UserError(f"the tokenizer of {kind!r} refuses {dict(arguments)}: {error}") from error


def preprocess_kind(
    kind: str, tokenizer: Tokenizer | None, picture: Preprocess, arguments: Mapping[str, Any] | None
) -> Preprocess:
    """How media of a kind become what its tokenizer reads.

    Args:
        kind: of the media.
        tokenizer: of the kind; None = the tower's own patches.
        picture: how a still picture is read.
        arguments: of the tokenizer.
    """
    if tokenizer is None:
        num_frames = (arguments or {}).get("num_frames", PICTURES[kind])
        if kind == "image":
            return picture
        same = {"size": picture.size, "mean": picture.mean, "std": picture.std, "fit": picture.fit}
        return ClipPreprocess(kind=kind, num_frames=num_frames, **same)  # type: ignore[arg-type]
    if kind != "audio":
        return NumbersPreprocess(kind=kind, shape=tokenizer.shape)
    bins, columns = tokenizer.shape
    window, hop = RATE // 40, RATE // 100
    samples = hop * (columns - 1) + window
    size, mean, std = (bins, columns), (AST_MEAN,), (2 * AST_STD,)
    return SoundPreprocess(size=size, mean=mean, std=std, sample_rate=RATE, samples=samples, window=window, hop=hop)


def _pieces(length: int, kernel: int, stride: int) -> int:
    return (length - kernel) // stride + 1
