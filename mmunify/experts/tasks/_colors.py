"""Colours by name. The table has the muted inks of the digit world; other names are those of CSS, by Pillow."""

import re

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 225, 60),
    "purple": (165, 50, 190),
    "orange": (250, 135, 20),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "pink": (250, 130, 190),
    "brown": (130, 80, 40),
    "cyan": (40, 200, 215),
    "turquoise": (50, 200, 180),
    "magenta": (220, 40, 200),
}

_WORD = re.compile(r"#[0-9a-f]{3}(?:[0-9a-f]{3})?\b|[a-z]+")


def color_of(word: str) -> tuple[int, int, int] | None:
    """RGB of one colour name ("red", "darkgreen", "#ff8800"), or None."""
    from PIL import ImageColor

    name = word.lower()
    if name in COLORS:
        return COLORS[name]
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        return None


def find_color(text: str) -> tuple[str, tuple[int, int, int]] | None:
    """The first colour that a text names, as (name, RGB): "paint it dark green" -> ("dark green", ...), or None."""
    words = _WORD.findall(text.lower())
    for first, second in zip(words, [*words[1:], ""], strict=True):
        if second and (both := color_of(first + second)) is not None:
            return f"{first} {second}", both
        if (one := color_of(first)) is not None:
            return first, one
    return None
