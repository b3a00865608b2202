"""Which views a picture of any size becomes, and how they lie in the sequence."""

import itertools

import pytest

from mmunify.errors import DataError, UserError
from mmunify.layers.tiling import AnyResTiling, PatchTiling, SeedXTiling, as_sizes, most_pixels, nearest_shape
from mmunify.types import Layout, Run, SlotSpec

SEEDX = SeedXTiling(size=(448, 448))
VIEW = SlotSpec(opens="<img>", closes="</img>", layout=Layout.of(64, (8, 8)))

# Golden values: columns x rows that the two published selectors give, and what is taken.
RELEASED = [
    ((224, 224), (1, 1), (1, 1), (1, 1)),
    ((449, 448), (2, 1), (1, 1), (1, 1)),
    ((500, 500), (2, 2), (1, 1), (1, 1)),
    ((640, 480), (2, 2), (1, 1), (1, 1)),
    ((800, 600), (2, 2), (2, 2), (2, 2)),
    ((896, 448), (2, 1), (2, 1), (2, 1)),
    ((1024, 1024), (2, 2), (2, 2), (2, 2)),
    ((600, 400), (2, 1), (2, 1), (2, 1)),
    ((1920, 1080), (2, 2), (2, 1), (2, 1)),
    ((1080, 1920), (2, 2), (1, 2), (1, 2)),
    ((1500, 500), (3, 1), (3, 1), (3, 1)),
    ((500, 1500), (1, 3), (1, 3), (1, 3)),
    ((2000, 400), (4, 1), (4, 1), (4, 1)),
    ((400, 2000), (1, 4), (1, 4), (1, 4)),
    ((300, 100), (1, 1), (3, 1), (1, 1)),
    ((1280, 720), (2, 2), (2, 1), (2, 1)),
]


@pytest.mark.parametrize(("extent", "detailed", "alike", "chosen"), RELEASED)
def test_seedx_released_rule(extent, detailed, alike, chosen):
    canvases = [(columns * 448, rows * 448) for columns, rows in SEEDX.grids]
    assert most_pixels(extent, canvases) == (detailed[0] * 448, detailed[1] * 448)
    assert nearest_shape(extent, canvases) == (alike[0] * 448, alike[1] * 448)
    assert SEEDX.grid(extent) == chosen


@pytest.mark.parametrize(
    ("extent", "grid"),
    [((448, 448), (1, 1)), ((449, 448), (2, 1)), ((10_000, 10), (23, 1)), ((1, 1), (1, 1)), ((900, 1400), (3, 4))],
)
def test_seedx_ceiling_rule_covers_the_picture_with_the_fewest_tiles(extent, grid):
    ceiling = SeedXTiling(size=(448, 448), rule="ceiling")
    assert ceiling.grid(extent) == grid
    fits = [
        (c, r) for c, r in itertools.product(range(1, 30), repeat=2) if c * 448 >= extent[0] and r * 448 >= extent[1]
    ]
    assert min(fits, key=lambda g: g[0] * g[1]) == grid


def test_seedx_ceiling_rule_with_a_limit():
    limited = SeedXTiling(size=(10, 10), rule="ceiling", max_tiles=6)
    assert limited.grid((90, 40)) == (2, 3)
    assert limited.grid((90, 10)) == (6, 1)
    assert limited.grid((30, 20)) == (3, 2)


def test_seedx_sheets_are_stretched_and_the_whole_picture_is_last():
    tiles, whole = SEEDX.sheets((600, 400))
    assert (tiles.size, tiles.canvas, tiles.grid) == ((896, 448), (896, 448), (2, 1))
    assert (whole.size, whole.grid) == ((448, 448), (1, 1))
    assert SEEDX.num_views((600, 400)) == 3
    assert SEEDX.num_views((224, 224)) == 2  # two identical views, as released


def test_seedx_centres_are_row_major():
    assert SEEDX.centers((800, 600)) == [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75), (0.5, 0.5)]


@pytest.mark.parametrize(("extent", "positions"), [((224, 224), 132), ((800, 600), 330)])
def test_seedx_positions_of_an_item(extent, positions):
    """64 slots per view and two strings each: the numbers of the released 8-grid rule."""
    slot = SEEDX.slot(VIEW, extent)
    assert (slot.opens, slot.closes) == ("", "")
    runs = slot.layout.runs
    assert sum(run.slots or 1 for run in runs) == positions
    assert [run.token for run in runs if run.token][:2] == ["<patch>", "</patch>"]
    assert [runs[-3].token, runs[-2].slots, runs[-1].token] == ["<img>", 64, "</img>"]


def test_seedx_adapters_that_read_all_views_together_keep_their_slots():
    fixed = SlotSpec(opens="<image>", closes="</image>", layout=Layout.of(32))
    assert SEEDX.slot(fixed, (800, 600)) == fixed
    both = SlotSpec(opens="<image>", layout=Layout(runs=(Run(slots=32), Run(slots=4, grid=(2, 2)))))
    slot = SEEDX.slot(both, (896, 448))
    assert slot.opens == "<image>"
    assert [run.token or run.slots for run in slot.layout.runs] == [32, *["<patch>", 4, "</patch>"] * 2, 4]
    assert SEEDX.slot(SlotSpec(), (5, 5)) == SlotSpec()


ANYRES = AnyResTiling(size=(336, 336))


@pytest.mark.parametrize(
    ("extent", "canvas", "kept"),
    [
        ((336, 336), (336, 672), (24, 24)),
        ((640, 480), (672, 672), (36, 48)),
        ((1000, 300), (1008, 336), (22, 72)),
        ((300, 1000), (336, 1008), (72, 22)),
        ((10_000, 10), (1008, 336), (2, 72)),
        ((1, 1), (336, 672), (24, 24)),
    ],
)
def test_anyres_canvas_and_what_is_kept(extent, canvas, kept):
    columns, rows = ANYRES.grid(extent)
    assert (columns * 336, rows * 336) == canvas
    down, across = ANYRES.crop(extent)
    assert (down.stop - down.start, across.stop - across.start) == kept
    runs = ANYRES.layout(extent).runs
    assert runs[0] == Run(slots=576, grid=(24, 24))
    assert [run.token for run in runs[2::2]] == ["\n"] * kept[0]
    assert ANYRES.layout(extent).num_slots == 576 + kept[0] * kept[1]


def test_anyres_sheets():
    whole, tiles = ANYRES.sheets((640, 480))
    assert (whole.size, whole.grid) == ((336, 336), (1, 1))
    assert (tiles.size, tiles.canvas, tiles.offset, tiles.grid) == ((672, 504), (672, 672), (0, 84), (2, 2))
    assert ANYRES.num_views((640, 480)) == 5


def test_anyres_slots_follow_token_wise_adapters_alone():
    kept = SlotSpec(layout=ANYRES.layout())
    assert ANYRES.slot(kept, (640, 480)).layout == ANYRES.layout((640, 480))
    resampled = SlotSpec(layout=Layout.of(64, (8, 8)))
    assert ANYRES.slot(resampled, (640, 480)) == resampled
    beside = SlotSpec(layout=Layout(runs=(Run(slots=32), *ANYRES.layout().runs)))
    assert ANYRES.slot(beside, (640, 480)).layout.num_slots == 32 + ANYRES.layout((640, 480)).num_slots
    assert ANYRES.slot(SlotSpec(), (5, 5)) == SlotSpec()


def test_without_newlines_the_map_is_one_raster():
    plain = AnyResTiling(size=(336, 336), newline="")
    assert plain.layout((640, 480)).runs[1:] == (Run(slots=36 * 48, grid=(36, 48)),)


@pytest.mark.parametrize(
    ("extent", "resized", "cells"),
    [
        ((300, 300), (300, 300), (10, 10)),
        ((301, 299), (301, 299), (10, 11)),
        ((1920, 1080), (1920, 1080), (36, 64)),
        ((4000, 1000), (1920, 480), (16, 64)),
        ((1000, 4000), (270, 1080), (36, 9)),
        ((10_000, 2), (1920, 1), (1, 64)),
        ((1, 1), (1, 1), (1, 1)),
    ],
)
def test_fuyu_patches(extent, resized, cells):
    """ceil(h / 30) (ceil(w / 30) + 1) tokens, newlines counted."""
    patches = PatchTiling(size=(1080, 1920))
    assert (patches.resized(extent), patches.cells(extent)) == (resized, cells)
    runs = patches.layout(extent).runs
    assert sum(run.slots or 1 for run in runs) == cells[0] * (cells[1] + 1)
    (sheet,) = patches.sheets(extent)
    assert sheet.canvas == (cells[1] * 30, cells[0] * 30)
    assert sheet.offset == (0, 0)


def test_fuyu_slots_and_attention():
    patches = PatchTiling(size=(60, 60), attention="full")
    slot = patches.slot(SlotSpec(layout=patches.layout()), (30, 50))
    assert (slot.layout.num_slots, slot.attention) == (2, "full")
    assert patches.slot(SlotSpec(layout=Layout.of(5)), (30, 50)).layout == Layout.of(5)


@pytest.mark.parametrize("tiling", [SEEDX, ANYRES, PatchTiling(size=(60, 60))])
def test_pictures_without_a_pixel(tiling):
    with pytest.raises(DataError, match="at least one pixel each way; got 0 x 7"):
        tiling.sheets((0, 7))


@pytest.mark.parametrize("sizes", [[], [[3]], [[336, 330]], [[0, 336]]])
def test_sizes_of_a_recipe(sizes):
    with pytest.raises(UserError, match="canvases takes pairs of whole numbers, multiples of 336 x 336"):
        as_sizes(sizes, "canvases", (336, 336))
    assert as_sizes([[336, 672]], "canvases", (336, 336)) == ((336, 672),)
