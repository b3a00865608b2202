"""Pictures from layouts and prompts: handwritten digits, and labelled outlines for everything else."""

import zlib
from collections.abc import Sequence

import numpy as np

from mmunify.errors import UserError
from mmunify.experts.tasks._colors import find_colors
from mmunify.experts.tasks._glyphs import draw_number, draw_words, paste_ink
from mmunify.experts.tasks._names import artifact_name
from mmunify.experts.tasks._pictures import pixel_box
from mmunify.experts.tasks._requests import find_number, lay_out
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Artifact, Region, TaskCall

WORDS_SIZE = 256
"""Least side of a picture that holds printed words: they can't be read in a smaller one."""

PLAIN = (235, 235, 235)
"""Colour of what has no colour in its label."""


@EXPERTS.register("layout_renderer")
class LayoutRenderer(Expert):
    """Answers `layout_to_image` and `generate_image` without weights; never fails on a prompt that it can't draw.

    Args:
        size: side of the picture in pixels; at least 256 where words are printed.
    """

    name = "layout_renderer"
    tasks = ("layout_to_image", "generate_image")

    def __init__(self, size: int = 64) -> None:
        if not 8 <= size <= 4096:
            raise UserError(f"layout_renderer size={size}: choose a side of 8 to 4096 pixels")
        self.size = size

    def __call__(self, call: TaskCall, workspace: Workspace) -> list[Artifact]:
        """One picture: the call's regions, or boxes for what the instruction names; the same for the same seed."""
        regions = call.regions or tuple(lay_out(call.instruction))
        is_printed = any(find_number(region.label) is None for region in regions)
        size = max(self.size, WORDS_SIZE) if is_printed else self.size
        rng = np.random.default_rng([workspace.seed, zlib.crc32(call.instruction.encode("utf-8", "replace"))])
        picture = _draw_background(size, np.random.default_rng(workspace.seed))
        for region in regions:
            _draw_region(picture, region, rng)
        name = artifact_name("generated", call.instruction)
        return [Artifact(kind="image", data=picture, call=call, producer=self.name, seed=workspace.seed, name=name)]


def _draw_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A muted tint with soft clouds and grain: uint8 [size size 3]."""
    from skimage.transform import resize

    tint = rng.uniform(90, 160) + rng.uniform(-12, 12, 3)
    clouds = np.asarray(resize(rng.standard_normal((5, 5)), (size, size), order=3))[..., None]
    grain = 4 * rng.standard_normal((size, size, 1)) + 2 * rng.standard_normal((size, size, 3))
    return np.clip(tint + 10 * clouds + grain, 0, 255).astype(np.uint8)


def _draw_region(picture: np.ndarray, region: Region, rng: np.random.Generator) -> None:
    x0, y0, x1, y1 = pixel_box(region, picture.shape)
    colors = find_colors(region.label)
    color = colors[0][1] if colors else PLAIN
    number = find_number(region.label)
    if number is not None:
        ink = draw_number(number, y1 - y0, rng)
        paste_ink(picture, ink, ((x0 + x1) / 2, (y0 + y1) / 2), color)
        return
    _draw_outline(picture, (x0, y0, x1, y1), color)
    ink = draw_words(region.label or "?", max(y1 - y0 - 4, 1), max(x1 - x0 - 4, 1))
    paste_ink(picture, ink, ((x0 + x1) / 2, (y0 + y1) / 2), color)


def _draw_outline(picture: np.ndarray, box: Sequence[int], color: tuple[int, int, int]) -> None:
    x0, y0, x1, y1 = box
    picture[y0:y1, [x0, x1 - 1]] = color
    picture[[y0, y1 - 1], x0:x1] = color
