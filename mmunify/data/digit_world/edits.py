"""Ground truth of edits: a region edit is an edit of the scene, drawn again; a global edit is a rule on pixels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.scene import Digit, Scene, fit_digit
from mmunify.errors import DataError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey picture (ITU-R BT.601)."""

BRIGHTER, DARKER = 1.4, 0.6
"""Factors on pixel values."""

SHRINKS = (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Heights, relative to the old digit's, that are tried for a new one until it fits among its neighbours."""


def _scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.minimum(picture * factor + 0.5, 255).astype(np.uint8)


def _grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat((picture @ np.asarray(LUMA) + 0.5).astype(np.uint8)[..., None], 3, axis=2)


GLOBAL_EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "invert the colors": lambda picture: 255 - picture,
    "make it grayscale": _grey,
    "make it brighter": lambda picture: _scaled(picture, BRIGHTER),
    "make it darker": lambda picture: _scaled(picture, DARKER),
    "flip it": lambda picture: picture[:, ::-1].copy(),
}
"""Canonical instruction -> the edit, uint8 [H W 3] to uint8 [H W 3]."""


def edit_picture(picture: np.ndarray, instruction: str) -> np.ndarray:
    """A global edit of a picture (uint8 [H W 3]).

    Raises:
        DataError: no global edit has this instruction.
    """
    if instruction not in GLOBAL_EDITS:
        raise DataError(f"no global edit {instruction!r}: expected one of {sorted(GLOBAL_EDITS)}")
    return GLOBAL_EDITS[instruction](picture)


def _with_digit(scene: Scene, index: int, *digits: Digit) -> Scene:
    return replace(scene, digits=(*scene.digits[:index], *digits, *scene.digits[index + 1 :]))


def remove_digit(scene: Scene, index: int) -> Scene:
    """The scene without its digit number `index`."""
    return _with_digit(scene, index)


def recolor_digit(scene: Scene, index: int, color: str) -> Scene:
    """The scene with digit number `index` in another colour."""
    return _with_digit(scene, index, replace(scene.digits[index], color=color))


def replace_digit(scene: Scene, index: int, digit: int, rng: np.random.Generator, split: Split) -> Scene:
    """The scene with another digit, in handwriting of `split`, in place of digit number `index`.

    It has the old one's colour, centre and, if its neighbours leave room, height.
    """
    old = scene.digits[index]
    others = [other.box for position, other in enumerate(scene.digits) if position != index]
    new = old
    for shrink in SHRINKS:
        sample = handwriting.pick(rng, digit, split)
        new = fit_digit(sample, old.color, _shrunk(old.box, shrink))
        if _is_free(new.box, others, scene.size):
            break
    return _with_digit(scene, index, new)


def _shrunk(box: tuple[int, int, int, int], factor: float) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    cut = round((y1 - y0) * (1 - factor) / 2)
    return x0, y0 + cut, x1, y1 - cut


def _is_free(box: tuple[int, int, int, int], others: list[tuple[int, int, int, int]], size: int) -> bool:
    inside = min(box) >= 0 and max(box) <= size
    return inside and all(
        box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3] for other in others
    )
