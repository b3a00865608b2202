"""Pictures of any size as numbers: into which views they are cut, and how the item then lies in the sequence.

The data side reads this and cuts; an encoder reads the same object and takes the views apart again. Sizes are (width,
height) and grids (columns, rows), but for `Preprocess.size` and `Run.grid`, which are (height, width).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmunify.errors import DataError, UserError
from mmunify.types import Layout, Preprocess, Run, SlotSpec

Size = tuple[int, int]

SEEDX_GRIDS: tuple[Size, ...] = ((1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (1, 4), (4, 1), (2, 2))
"""Columns x rows of SEED-X's released configurations, in their order (it decides ties)."""

ANYRES_CANVASES: tuple[Size, ...] = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""Width x height of LLaVA-NeXT's canvases, in their order (it decides ties)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A picture resized to `size`, laid on a canvas and cut, row by row, into equal tiles.

    Attributes:
        size: of the resized picture.
        canvas: on which it is laid.
        offset: (x, y) of the picture's corner on the canvas.
        grid: columns and rows of the cut.
        colour: of the canvas.
    """

    size: Size
    canvas: Size
    offset: tuple[int, int] = (0, 0)
    grid: Size = (1, 1)
    colour: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic(Preprocess, ABC):
    """Preprocessing whose views and slots depend on the picture's own size."""

    @abstractmethod
    def sheets(self, extent: Size) -> tuple[Sheet, ...]:
        """What a picture of this size is cut from, in the order of the views."""

    @abstractmethod
    def slot(self, slot: SlotSpec, extent: Size) -> SlotSpec:
        """How an item of this size lies in the sequence, given what the adapter makes of the smallest one."""

    def num_views(self, extent: Size) -> int:
        """Views that a picture of this size becomes."""
        return sum(columns * rows for columns, rows in (sheet.grid for sheet in self.sheets(extent)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedXTiling(Dynamic):
    """SEED-X (https://arxiv.org/abs/2404.14396): tiles row by row, each on its own, the whole picture last.

    Attributes:
        rule: "released" chooses among `grids` as the published code does; "ceiling" takes as many columns and rows as
            cover the picture at its own size, as the paper says.
        grids: columns and rows to choose from.
        max_tiles: with the ceiling rule, the longer side of the grid is shortened down to this many; None = no limit.
        opens, closes: strings around every tile. The node's own pair surrounds the whole picture.
    """

    rule: Literal["released", "ceiling"] = "released"
    grids: tuple[Size, ...] = SEEDX_GRIDS
    max_tiles: int | None = None
    opens: str = "<patch>"
    closes: str = "</patch>"

    def grid(self, extent: Size) -> Size:
        """Columns and rows for a picture of this size."""
        require_extent(extent)
        height, width = self.size
        if self.rule == "ceiling":
            return _limited((-(-extent[0] // width), -(-extent[1] // height)), self.max_tiles)
        canvases = [(columns * width, rows * height) for columns, rows in self.grids]
        detailed, alike = most_pixels(extent, canvases), nearest_shape(extent, canvases)
        chosen = alike if _area(detailed) > _area(alike) else detailed
        return chosen[0] // width, chosen[1] // height

    def sheets(self, extent: Size) -> tuple[Sheet, ...]:
        """The tiles, stretched over the whole canvas; then the whole picture."""
        (columns, rows), (height, width) = self.grid(extent), self.size
        canvas, whole = (columns * width, rows * height), (width, height)
        return Sheet(size=canvas, canvas=canvas, grid=(columns, rows)), Sheet(size=whole, canvas=whole)

    def centers(self, extent: Size) -> list[tuple[float, float]]:
        """(x, y) in 0..1 of every view's centre; that of the whole picture, the last one, is (0.5, 0.5)."""
        columns, rows = self.grid(extent)
        tiles = [((x + 0.5) / columns, (y + 0.5) / rows) for y in range(rows) for x in range(columns)]
        return [*tiles, (0.5, 0.5)]

    def layout(self, view: Layout, extent: Size) -> Layout:
        """Rasters of one view, repeated: the tiles between their strings, then the whole picture's.

        A run without a raster is what an adapter makes of all views together: it stands once.
        """
        columns, rows = self.grid(extent)
        tiles = columns * rows
        runs = [self._views(run, tiles) if run.grid else (run,) for run in view.runs]
        return Layout(runs=tuple(run for part in runs for run in part))

    def slot(self, slot: SlotSpec, extent: Size) -> SlotSpec:
        """The adapter's layout of one view, once per view; the node's own strings stand around the whole picture."""
        if slot.layout is None:
            return slot
        runs = self.layout(slot.layout, extent).runs
        if len(slot.layout.runs) != 1 or slot.layout.runs[0].grid is None:
            return replace(slot, layout=Layout(runs=runs))
        whole = _between(slot.opens, runs[-1:], slot.closes)
        return replace(slot, opens="", closes="", layout=Layout(runs=(*runs[:-1], *whole)))

    def _views(self, run: Run, tiles: int) -> tuple[Run, ...]:
        return (*_between(self.opens, (run,), self.closes) * tiles, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyResTiling(Dynamic):
    """LLaVA-NeXT (https://llava-vl.github.io/blog/2024-01-30-llava-next): the whole picture, then its tiles as one map.

    The map is cropped to what is picture and not border, and every row of it ends with a newline.

    Attributes:
        canvases: sizes to choose from; each a multiple of the encoder's size.
        cells: (rows, columns) of the encoder's raster.
        newline: vocabulary string after each row ("" = none).
    """

    canvases: tuple[Size, ...] = ANYRES_CANVASES
    cells: tuple[int, int] = (24, 24)
    newline: str = "\n"

    def grid(self, extent: Size) -> Size:
        """Columns and rows of tiles for a picture of this size."""
        require_extent(extent)
        (width, height), (tile_height, tile_width) = most_pixels(extent, self.canvases), self.size
        return width // tile_width, height // tile_height

    def sheets(self, extent: Size) -> tuple[Sheet, ...]:
        """The whole picture, stretched; then the tiles: the picture in its own shape, centred on black."""
        (columns, rows), (height, width) = self.grid(extent), self.size
        canvas, whole = (columns * width, rows * height), (width, height)
        size = _inside(extent, canvas)
        offset = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
        return (
            Sheet(size=whole, canvas=whole),
            Sheet(size=size, canvas=canvas, offset=offset, grid=(columns, rows)),
        )

    def crop(self, extent: Size) -> tuple[slice, slice]:
        """Rows and columns of the tiles' joint map that are picture; where nothing would be left, one or two are."""
        columns, rows = self.grid(extent)
        width, height = columns * self.cells[1], rows * self.cells[0]
        if extent[0] / extent[1] > width / height:
            return _middle(height, extent[1] * (width / extent[0])), slice(0, width)
        return slice(0, height), _middle(width, extent[0] * (height / extent[1]))

    def layout(self, extent: Size | None = None) -> Layout:
        """The whole picture's raster, then the rows of the map with their newlines; None = the raster alone."""
        base = Layout.of(self.cells[0] * self.cells[1], self.cells)
        if extent is None:
            return base
        down, across = self.crop(extent)
        return Layout(runs=(*base.runs, *_rows(down.stop - down.start, across.stop - across.start, self.newline)))

    def slot(self, slot: SlotSpec, extent: Size) -> SlotSpec:
        """Token-wise adapters keep the rows; others answer with a number of slots that stands."""
        if slot.layout is None:
            return slot
        base = self.layout().runs[0]
        runs = [self.layout(extent).runs if run == base else (run,) for run in slot.layout.runs]
        return replace(slot, layout=Layout(runs=tuple(run for part in runs for run in part)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchTiling(Dynamic):
    """Fuyu (https://www.adept.ai/blog/fuyu-8b): the picture in its own size and shape, scaled down if it must.

    `size` is the largest (height, width). Borders on the right and below, up to whole patches, are almost black (1 of
    255): Fuyu pads before it divides by 255.

    Attributes:
        patch_size: side of a patch.
        newline: vocabulary string after each row of patches ("" = none).
        attention: among the patches of one item.
    """

    patch_size: int = 30
    newline: str = "|NEWLINE|"
    attention: Literal["causal", "full"] = "causal"

    def resized(self, extent: Size) -> Size:
        """Size after scaling down; pictures that fit keep theirs."""
        require_extent(extent)
        height, width = self.size
        if extent[0] <= width and extent[1] <= height:
            return extent
        scale = min(height / extent[1], width / extent[0])
        return max(1, int(extent[0] * scale)), max(1, int(extent[1] * scale))

    def cells(self, extent: Size | None) -> tuple[int, int]:
        """Rows and columns of patches; None = of the largest picture."""
        width, height = self.size[::-1] if extent is None else self.resized(extent)
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def sheets(self, extent: Size) -> tuple[Sheet, ...]:
        """One sheet of whole patches."""
        rows, columns = self.cells(extent)
        canvas = columns * self.patch_size, rows * self.patch_size
        return (Sheet(size=self.resized(extent), canvas=canvas, colour=(1, 1, 1)),)

    def layout(self, extent: Size | None = None) -> Layout:
        """The rows of patches with their newlines; None = the largest picture's."""
        rows, columns = self.cells(extent)
        return Layout(runs=_rows(rows, columns, self.newline))

    def slot(self, slot: SlotSpec, extent: Size) -> SlotSpec:
        """Token-wise adapters keep the rows; others answer with a number of slots that stands."""
        layout = self.layout(extent) if slot.layout == self.layout() else slot.layout
        return replace(slot, layout=layout, attention=self.attention)


def most_pixels(extent: Size, canvases: Sequence[Size]) -> Size:
    """The canvas that shows most of the picture's pixels; of equals the one with the least border; then the first."""
    width, height = extent

    def cost(canvas: Size) -> tuple[int, int]:
        scale = min(canvas[0] / width, canvas[1] / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return -shown, _area(canvas) - shown

    return min(canvases, key=cost)


def nearest_shape(extent: Size, canvases: Sequence[Size]) -> Size:
    """The canvas whose shape is nearest to the picture's; of equals the one nearest in area; then the first."""

    def cost(canvas: Size) -> tuple[float, float]:
        return _ratio(canvas[1] / canvas[0], extent[1] / extent[0]), _ratio(_area(canvas), _area(extent))

    return min(canvases, key=cost)


def require_extent(extent: Size) -> None:
    """Refuse sizes that no picture has.

    Raises:
        DataError: a side below 1.
    """
    if min(extent) < 1:
        raise DataError(f"a picture needs at least one pixel each way; got {extent[0]} x {extent[1]}")


def as_sizes(sizes: Sequence[Sequence[int]], what: str, unit: Size = (1, 1)) -> tuple[Size, ...]:
    """Pairs of whole numbers, multiples of `unit`, from a recipe's lists.

    Raises:
        UserError: an empty list, or an entry that is no such pair.
    """
    pairs = [tuple(size) for size in sizes]
    wrong = [p for p in pairs if len(p) != 2 or min(p) < 1 or p[0] % unit[0] or p[1] % unit[1]]
    if wrong or not pairs:
        wanted = "pairs of whole numbers" + ("" if unit == (1, 1) else f", multiples of {unit[0]} x {unit[1]}")
        raise UserError(f"{what} takes {wanted}, at least one; got {wrong or sizes}")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _rows(rows: int, columns: int, newline: str) -> tuple[Run, ...]:
    if not newline:
        return (Run(slots=rows * columns, grid=(rows, columns)),)
    return (Run(slots=columns, grid=(1, columns)), Run(token=newline)) * rows


def _between(opens: str, runs: tuple[Run, ...], closes: str) -> tuple[Run, ...]:
    return (*_string(opens), *runs, *_string(closes))


def _string(text: str) -> tuple[Run, ...]:
    return (Run(token=text),) if text else ()


def _limited(grid: Size, most: int | None) -> Size:
    columns, rows = grid
    while most is not None and columns * rows > max(1, most):
        columns, rows = (columns - 1, rows) if columns >= rows else (columns, rows - 1)
    return columns, rows


def _inside(extent: Size, canvas: Size) -> Size:
    """The largest size of the picture's shape on the canvas, rounded up."""
    across, down = canvas[0] / extent[0], canvas[1] / extent[1]
    if across < down:
        return canvas[0], min(math.ceil(extent[1] * across), canvas[1])
    return min(math.ceil(extent[0] * down), canvas[0]), canvas[1]


def _middle(length: int, kept: float) -> slice:
    """The middle of `length`, about `kept` long and of the same parity."""
    border = (length - max(1, int(round(kept, 7)))) // 2
    return slice(border, length - border)


def _area(size: Size) -> int:
    return size[0] * size[1]


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)
