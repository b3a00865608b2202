import pytest

from mmunify.data.digit_world.scene import COLORS as INKS
from mmunify.experts.tasks._colors import COLORS, color_of, find_colors


def test_the_inks_of_the_digit_world_are_the_experts_colors():
    assert {name: COLORS[name] for name in INKS} == INKS


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("paint it blue", ["blue"]),
        ("from Red to dark green, please", ["red", "dark green"]),
        ("#ff8800", ["#ff8800"]),
        ("make it nicer", []),
        ("", []),
    ],
)
def test_colors_are_found_in_words(text, names):
    assert [name for name, _ in find_colors(text)] == names


def test_names_of_css_are_known():
    assert color_of("darkgreen") == (0, 100, 0)
    assert color_of("#ff8800") == (255, 136, 0)
    assert color_of("seven") is None
