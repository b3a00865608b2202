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


def find_colors(text: str) -> list[tuple[str, tuple[int, int, int]]]:
    """All colours that a text names, in order, as (name, RGB): "from red to dark green" has two."""
    words = _WORD.findall(text.lower())
    found, index = [], 0
    while index < len(words):
        both = color_of("".join(words[index : index + 2])) if index + 1 < len(words) else None
        one = color_of(words[index])
        if both is not None:
            found.append((" ".join(words[index : index + 2]), both))
        elif one is not None:
            found.append((words[index], one))
        index += 2 if both is not None else 1
    return found
