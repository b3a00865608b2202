"""Reading numbers: arrays, and files of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmunify.errors import DataError
from mmunify.layers.numbers import NumbersPreprocess


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """A medium that is numbers. `extent` = (how many, 1): what stands where a picture has width and height."""

    values: Tensor
    extent: tuple[int, int]


def read_numbers(source: Any, what: str = "a target") -> Tensor:
    """Numbers as they are, float32: an array, a number, or a `.npy` file of features made before.

    Args:
        source: see above.
        what: they are, for messages.

    Raises:
        DataError: a file that can't be read, or something else than finite numbers.
    """
    if isinstance(source, str | Path):
        source = _load(Path(source), what)
    try:
        numbers = torch.as_tensor(np.asarray(source), dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be numbers; got {type(source).__name__}: {error}") from error
    if not bool(numbers.isfinite().all()):
        raise DataError(f"{what} of shape {tuple(numbers.shape)} holds numbers that are not finite")
    return numbers


def open_numbers(source: Any) -> Numbers:
    """A medium of numbers, from an array or a `.npy` file.

    Raises:
        DataError: see `read_numbers`; or no number at all.
    """
    values = read_numbers(source, "a medium")
    if not values.numel():
        raise DataError(f"a medium of numbers is empty: shape {tuple(values.shape)}")
    return Numbers(values=values, extent=(values.numel(), 1))


def prepare_numbers(medium: Numbers, preprocess: NumbersPreprocess) -> Tensor:
    """The numbers, if they have the encoder's shape.

    Raises:
        DataError: another shape.
    """
    if tuple(medium.values.shape) != preprocess.shape:
        raise DataError(
            f"numbers of shape {tuple(medium.values.shape)}, where the encoder of {preprocess.kind!r} reads "
            f"{preprocess.shape}"
        )
    return medium.values


def _load(path: Path, what: str) -> Any:
    if path.suffix != ".npy":
        raise DataError(f"{path} is no {what.removeprefix('a ')} of numbers; give a .npy file or the numbers")
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error
