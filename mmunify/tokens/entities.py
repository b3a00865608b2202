"""Text that looks like markup, inside markup: `&lt; &gt; &amp; &#91; &#93;`, and outer white space as `&#32;`."""

import re

_ENTITY = re.compile(r"&(amp|lt|gt|#[0-9]{1,7});")
_NAMED = {"amp": "&", "lt": "<", "gt": ">"}


def escape(text: str, more: str = "") -> str:
    """Write what would read as markup, and outer white space, as entities."""
    text = _ENTITY.sub(lambda entity: "&amp;" + entity[0][1:], text)
    text = text.replace("<", "&lt;").replace(">", "&gt;")
    for char in more:
        text = text.replace(char, f"&#{ord(char)};")
    core = text.strip()
    before = text[: len(text) - len(text.lstrip())]
    after = text[len(before) + len(core) :]
    return _as_numbers(before) + core + _as_numbers(after)


def _as_numbers(text: str) -> str:
    return "".join(f"&#{ord(char)};" for char in text)


def unescape(text: str) -> str:
    """Inverse of `escape`; other ampersands stay as they are."""
    return _ENTITY.sub(_read_entity, text.strip())


def _read_entity(entity: re.Match[str]) -> str:
    name = entity[1]
    if name in _NAMED:
        return _NAMED[name]
    return chr(int(name[1:])) if int(name[1:]) <= 0x10FFFF else entity[0]
