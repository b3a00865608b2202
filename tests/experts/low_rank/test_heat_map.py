import pytest
from PIL import Image

from mmunify.errors import UserError
from mmunify.experts.low_rank._heat_map import CELL, DARK, PALE, draw_heat_map
from mmunify.experts.low_rank._telemetry import GateFigures, LayerFigures

WEIGHTS = [[1.0, 0.0, 0.25], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]


def figures(num_layers):
    layer = LayerFigures(weights=WEIGHTS, entropy=[0.0] * 3, tokens=[5.0, 5.0, 0.0])
    names = [f"layers.{i}.mlp.down_proj" for i in range(num_layers)]
    return GateFigures(tasks=("none", "edit", "segment"), layers=dict.fromkeys(names, layer))


def test_every_weight_is_a_cell_of_its_colour(tmp_path):
    picture = Image.open(draw_heat_map(figures(1), tmp_path / "gates" / "map.png")).convert("RGB")
    pixels = [picture.getpixel((x, y)) for y in range(picture.height) for x in range(picture.width)]
    area = CELL * CELL
    assert 0.5 * area < pixels.count(DARK) <= area
    assert 2 * area < pixels.count(PALE) <= 3 * area
    half = tuple(round((pale + dark) / 2) for pale, dark in zip(PALE, DARK, strict=True))
    assert 0.5 * area < pixels.count(half) <= area


def test_several_layers_stand_in_rows_after_their_mean(tmp_path):
    one = Image.open(draw_heat_map(figures(1), tmp_path / "one.png"))
    five = Image.open(draw_heat_map(figures(5), tmp_path / "five.png", columns=3))
    assert five.width > 2.5 * one.width and five.height > 1.5 * one.height


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no gate to draw"):
        draw_heat_map(GateFigures(tasks=("a",), layers={}), tmp_path / "x.png")
