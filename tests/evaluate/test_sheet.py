"""Contact sheets and what is drawn on pictures."""

import numpy as np
import pytest
from PIL import Image

from mmunify.evaluate import sheet
from mmunify.evaluate.sheet import Panel, draw_sheet, outline_boxes, overlay_mask

RED = np.zeros((8, 8, 3), np.uint8) + np.array([200, 0, 0], np.uint8)


def test_pictures_are_enlarged_without_smoothing(tmp_path):
    path = draw_sheet([Panel(title="red", picture=RED, lines=("> hi", "hello"))], "Heading", tmp_path / "a" / "s.png")
    page = np.asarray(Image.open(path))
    assert (page == [200, 0, 0]).all(-1).sum() == sheet.PICTURE**2


def test_panels_stand_in_rows_and_columns(tmp_path):
    sizes = {}
    for number in (1, 2, 3):
        panels = [Panel(title=str(i), picture=RED) for i in range(number)]
        sizes[number] = Image.open(draw_sheet(panels, "x", tmp_path / f"{number}.png", columns=2)).size
    assert sizes[1][0] < sizes[2][0] == sizes[3][0]
    assert sizes[2][1] < sizes[3][1]


def test_a_missing_picture_says_so(tmp_path):
    blank, framed = (
        np.asarray(Image.open(draw_sheet([panel], "x", tmp_path / f"{i}.png")))
        for i, panel in enumerate((Panel(title="t", picture=np.full((4, 4, 3), 252, np.uint8)), Panel(title="t")))
    )
    assert (framed == sheet.FAINT).all(-1).sum() > (blank == sheet.FAINT).all(-1).sum()


@pytest.mark.parametrize("line", ["word " * 60, "<box>" + "[0.125,0.250,0.375,0.500]" * 8, "", "short"])
def test_lines_are_wrapped_and_nothing_is_lost(line):
    font = sheet._font(sheet.TEXT_SIZE)
    parts = [text for text, _ in sheet._wrapped([line])]
    assert all(font.getlength(part) <= sheet.PICTURE for part in parts)
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")


def test_longer_texts_make_a_higher_sheet(tmp_path):
    low, high = (
        Image.open(draw_sheet([Panel(title="t", picture=RED, lines=lines)], "x", tmp_path / f"{len(lines)}.png"))
        for lines in ((), ("a", "b", "c"))
    )
    assert high.size[1] == low.size[1] + 3 * sheet.LINE


def test_masks_tint_what_they_hold_and_dim_the_rest():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    shown = overlay_mask(RED, mask, color=(0, 0, 255))
    assert (shown[mask][:, 2] > 100).all()
    assert (shown[~mask] == [120, 0, 0]).all()


def test_outlines_follow_the_box():
    shown = outline_boxes(RED, [(0.25, 0.25, 0.75, 0.75)], color=(0, 255, 0))
    assert shown.shape == (32, 32, 3)
    lines = (shown == [0, 255, 0]).all(-1)
    rows, columns = np.flatnonzero(lines.any(1)), np.flatnonzero(lines.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (8, 23, 8, 23)
    assert not lines[12:20, 12:20].any()


def test_boxes_at_the_edge_stay_on_the_picture():
    assert outline_boxes(RED, [(0.0, 0.0, 1.0, 1.0), (0.99, 0.99, 1.0, 1.0)]).shape == (32, 32, 3)
