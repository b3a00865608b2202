"""Edits of the whole picture: rules on pixels, chosen by the words of the instruction."""

import re
from collections.abc import Callable

import numpy as np

from mmunify.errors import UserError
from mmunify.experts.tasks._names import artifact_name
from mmunify.experts.tasks._pictures import input_picture
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, TaskCall

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey picture (ITU-R BT.601)."""

SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])

Edit = Callable[[np.ndarray], np.ndarray]
"""uint8 [H W 3] -> uint8 [H W 3]; quarter turns swap H and W."""


@EXPERTS.register("global_edit")
class GlobalEdit(Expert):
    """Answers `edit` with the edited picture. What it understands is listed in `EDITS`."""

    name = "global_edit"
    tasks = ("edit",)
    inputs = ("image",)

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture.

        Raises:
            UserError: no picture, or an instruction that names no edit of the list.
        """
        edit = find_edit(call.instruction)
        picture = np.ascontiguousarray(edit(input_picture(call, workspace)))
        name = artifact_name("edited", call.instruction)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, name=name)]


def find_edit(instruction: str) -> Edit:
    """The first edit whose words occur in the instruction.

    Raises:
        UserError: none; the message lists what is known.
    """
    for _, pattern, edit in EDITS:
        if pattern.search(instruction.lower()):
            return edit
    known = ", ".join(name for name, _, _ in EDITS)
    raise UserError(f"no edit is known for {instruction!r}; known are: {known}")


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def _scaled(factor: float) -> Edit:
    return lambda picture: _bytes(picture * factor)


def _gray(picture: np.ndarray) -> np.ndarray:
    return np.repeat(_bytes(picture @ LUMA)[..., None], 3, axis=2)


def _contrast(factor: float) -> Edit:
    return lambda picture: _bytes((picture - 127.5) * factor + 127.5)


def _saturation(factor: float) -> Edit:
    def edit(picture: np.ndarray) -> np.ndarray:
        gray = (picture @ LUMA)[..., None]
        return _bytes(gray + (picture - gray) * factor)

    return edit


def _tinted(red: float, blue: float) -> Edit:
    return lambda picture: _bytes(picture * np.array([red, 1.0, blue]))


def _blurred(picture: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    sigma = max(1.0, max(picture.shape) / 128)
    return _bytes(gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)))


def _sharpened(picture: np.ndarray) -> np.ndarray:
    return _bytes(2.0 * picture - _blurred(picture))


EDITS: tuple[tuple[str, re.Pattern[str], Edit], ...] = tuple(
    (name, re.compile(pattern), edit)
    for name, pattern, edit in (
        ("invert the colors", r"\binvert|\bnegative\b", lambda picture: 255 - picture),
        ("make it grayscale", r"gr[ae]y|black and white|desaturate|remove (all )?(the )?colou?r", _gray),
        ("make it brighter", r"too dark|(?<!too )\bbright|\blight(er|en)", _scaled(1.4)),
        ("make it darker", r"too bright|\bdark|\bdim\b", _scaled(0.6)),
        (
            "flip it upside down",
            r"upside|(flip|mirror).*vertical|vertical.*(flip|mirror)",
            lambda picture: picture[::-1],
        ),
        ("flip it", r"\bflip|\bmirror", lambda picture: picture[:, ::-1]),
        ("rotate it by 180 degrees", r"(rotate|turn).*180", lambda picture: np.rot90(picture, 2)),
        ("rotate it to the left", r"(rotate|turn).*(left|counter|anti|270)", lambda picture: np.rot90(picture)),
        ("rotate it to the right", r"\brotate|turn.*(right|clockwise|90)", lambda picture: np.rot90(picture, -1)),
        ("blur it", r"\bblur|\bsoft", _blurred),
        ("sharpen it", r"\bsharp", _sharpened),
        ("lower the contrast", r"(less|lower|reduce|decrease).*contrast", _contrast(0.6)),
        ("raise the contrast", r"contrast", _contrast(1.5)),
        ("make it less colorful", r"(less|lower|reduce|decrease).*(satura|colou?rful)|\bmuted?\b", _saturation(0.5)),
        ("make it more colorful", r"satura|colou?rful|vivid", _saturation(1.6)),
        ("make it sepia", r"sepia|vintage|old photo", lambda picture: _bytes(picture @ SEPIA.T)),
        ("make it warmer", r"\bwarm", _tinted(1.15, 0.85)),
        ("make it cooler", r"\bcool|\bcold", _tinted(0.85, 1.15)),
    )
)
"""(canonical instruction, words that ask for it, what it does); the first match wins."""
