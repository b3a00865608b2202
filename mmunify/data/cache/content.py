"""Digests of media: equal where the bytes are, whatever the name of the file."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmunify.data.sound import Sound

MEMORY = 100_000
"""Files whose digests a process remembers, by path, size and time of the last change."""


def content_digest(source: Any) -> str | None:
    """sha256 of a medium; None for a source whose content can't be told (an open clip), which is then not cached.

    Args:
        source: a file, a folder of pictures, an array, a PIL image, a sound, or a sequence of these.
    """
    digest = hashlib.sha256()
    try:
        for piece in _pieces(source):
            digest.update(piece)
    except (TypeError, OSError):  # a file that is missing is named when it is read
        return None
    return digest.hexdigest()


def _pieces(source: Any) -> Iterator[bytes]:
    """Bytes that a medium consists of, with what is needed to tell one kind of source from another."""
    if isinstance(source, str | Path):
        yield from _files(Path(source))
    elif isinstance(source, np.ndarray | Tensor):
        array = np.ascontiguousarray(source)
        yield from (f"array {array.dtype.str} {array.shape}".encode(), array.tobytes())
    elif isinstance(source, Sound):
        yield from _pieces((source.samples, source.rate))
    elif isinstance(source, list | tuple):
        yield f"sequence {len(source)}".encode()
        for each in source:
            yield from _pieces(each)
    elif isinstance(source, int | float | np.number):
        yield f"number {source!r}".encode()
    else:
        yield from _picture(source)


def _picture(source: Any) -> Iterator[bytes]:
    from PIL import Image

    if not isinstance(source, Image.Image):
        raise TypeError(f"no digest of a {type(source).__name__}")
    turned, clear = source.getexif().get(0x0112, 1), source.info.get("transparency")
    yield f"picture {source.mode} {source.size} {turned} {source.getpalette()} {clear}".encode()
    yield source.tobytes()


def _files(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            yield file.name.encode()
            yield from _files(file)
        return
    found = path.stat()
    yield bytes.fromhex(_file_digest(str(path.absolute()), found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=MEMORY)
def _file_digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
