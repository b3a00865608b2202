"""Files that hold media: opening them with one clear error for whatever is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmunify.errors import DataError
from mmunify.extras import require


def readable_file(source: str | Path, what: str) -> Path:
    """The path of a file that exists and holds something.

    Args:
        source: the path.
        what: kind of file, for messages ("video").

    Raises:
        DataError: missing, empty or no file.
    """
    path = Path(source)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{what} {path} is empty (0 bytes)")
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist") from error
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
    if not path.is_file():
        raise DataError(f"{what} {path} is a folder, no file")
    return path


@contextmanager
def open_container(path: Path, what: str) -> Iterator[Any]:
    """PyAV's container of a file; whatever the decoder says inside the `with` block becomes one error.

    Raises:
        MissingExtraError: PyAV isn't installed.
        DataError: bytes that can't be opened or decoded.
    """
    av = require("av", f"{what} input")
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error
