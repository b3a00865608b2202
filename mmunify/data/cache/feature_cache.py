"""The feature cache: outputs of frozen encoders on disk, one folder per encoder as it was, items by content."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmunify.data.cache.shards import SHARD_BYTES, SUFFIX, ShardFolder
from mmunify.errors import UserError

ABOUT = "about.json"
GIB = 2**30
NAME_LENGTH = 32
"""Of the digest that names a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is stored of one encoder.

    Attributes:
        name: of its folder.
        about: what was said of it when the folder was made.
        num_items: media.
        num_bytes: on disk.
        used: when a shard was last opened or written, in seconds since 1970; 0 = there is none.
    """

    name: str
    about: dict[str, Any]
    num_items: int
    num_bytes: int
    used: float


class FeatureCache:
    """A folder that all processes of a run share, and many runs.

    Args:
        folder: made if missing.
        limit: size in GiB beyond which the shards that were used least recently go; None = none.
        shard_bytes: see `ShardFolder`.

    Raises:
        UserError: a folder that can't be written.
    """

    def __init__(self, folder: str | Path, limit: float | None = None, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.limit, self.shard_bytes = Path(folder).expanduser(), limit, shard_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(
                f"the cache folder {self.folder} cannot be written ({error.strerror or error}); choose another one "
                "(cache.path), or leave the cache out"
            ) from error

    def items_of(self, fingerprint: str, about: dict[str, Any]) -> ShardFolder:
        """The items of one encoder.

        Args:
            fingerprint: digest of all that its features depend on beside the medium.
            about: what a person wants to know of it.
        """
        shards = ShardFolder(self.folder / fingerprint[:NAME_LENGTH], self.shard_bytes)
        note = shards.folder / ABOUT
        if not note.exists():
            note.write_text(json.dumps({"fingerprint": fingerprint, **about}, indent=2), encoding="utf-8")
        return shards

    def entries(self) -> list[Entry]:
        """What is stored, the most recently used first."""
        found = [_entry(note.parent) for note in self.folder.glob(f"*/{ABOUT}")]
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    @property
    def num_bytes(self) -> int:
        """On disk."""
        return sum(size for size, _ in _shards(self.folder).values())

    def evict(self) -> int:
        """Delete the shards that were used least recently, until the rest is within the limit.

        Returns:
            How many went.
        """
        if self.limit is None:
            return 0
        shards, gone = _shards(self.folder), 0
        total = sum(size for size, _ in shards.values())
        for path, (size, _) in sorted(shards.items(), key=lambda entry: entry[1][1]):
            if total <= self.limit * GIB:
                break
            path.unlink(missing_ok=True)
            total, gone = total - size, gone + 1
        return gone

    def clear(self, name: str = "") -> int:
        """Delete what is stored of the encoders whose folder begins with `name` (all of them).

        Returns:
            Bytes that are free again.

        Raises:
            UserError: there is none.
        """
        chosen = [entry for entry in self.entries() if entry.name.startswith(name)]
        if name and not chosen:
            raise UserError(f"the cache {self.folder} holds nothing whose name begins with {name!r}")
        for entry in chosen:
            shutil.rmtree(self.folder / entry.name, ignore_errors=True)
        return sum(entry.num_bytes for entry in chosen)


def _entry(folder: Path) -> Entry:
    shards = _shards(folder.parent, folder.name)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    return Entry(
        name=folder.name,
        about=about,
        num_items=len(ShardFolder(folder)),
        num_bytes=sum(size for size, _ in shards.values()),
        used=max((used for _, used in shards.values()), default=0.0),
    )


def _shards(folder: Path, name: str = "*") -> dict[Path, tuple[int, float]]:
    """Shard -> its size, and when it was last used; other processes may delete some meanwhile."""
    found = {}
    for path in folder.glob(f"{name}/*{SUFFIX}"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = (status.st_size, status.st_mtime)
    return found
