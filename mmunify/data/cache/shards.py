"""A folder of safetensors shards that many processes write and read at once, without locks.

A shard is written aside and renamed, so that it is there as a whole or not at all, and never changed again; a reader
whose shard is deleted reads on, or misses. Two processes may store the same item; either copy is right.
"""

import json
import os
import time
import uuid
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmunify.data.cache.items import StoredItem

SHARD_BYTES = 32 * 2**20
"""A shard is written when so much is waiting."""

OPEN_SHARDS = 32
"""Shards that a process keeps open."""

MARK_EVERY = 300.0
"""Seconds after which a shard that is read is marked as used again."""

SETTLED = 50_000_000
"""Nanoseconds after which a change of a folder is told apart from the next one."""

SUFFIX = ".safetensors"


class ShardFolder:
    """Items by key.

    Args:
        folder: made if missing.
        shard_bytes: see `SHARD_BYTES`.

    Attributes:
        num_written: items that this process has stored.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self.num_written = 0
        self._waiting: dict[str, StoredItem] = {}
        self._places: dict[str, str] = {}
        self._known: set[str] = set()
        self._changed = -1
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._marked: dict[str, float] = {}
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        """A spawned process opens the folder anew."""
        return type(self), (self.folder, self.shard_bytes)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or self._place(key) is not None

    def __len__(self) -> int:
        self._refresh()
        return len(self._places)

    def get(self, key: str) -> StoredItem | None:
        """The item; None = it isn't there, or its shard was deleted or is damaged."""
        place = self._place(key)
        if place is None:
            return self._waiting.get(key)
        try:
            shard, facts = self._shard(place)
            tensors = {name: shard.get_tensor(f"{key}/{name}") for name in facts[key]["tensors"]}
            self._mark(place)
            return StoredItem(tensors=tensors, facts=facts[key])
        except _unreadable():
            self._forget(place)
            return None

    def put(self, key: str, item: StoredItem) -> None:
        """Store an item, unless it is there."""
        if key in self:
            return
        self._waiting[key] = item
        if sum(each.num_bytes for each in self._waiting.values()) >= self.shard_bytes:
            self.flush()

    def flush(self) -> Path | None:
        """Write what is waiting as one shard.

        Raises:
            OSError: the disk is full, or the folder can't be written; what was waiting is dropped.
        """
        from safetensors.torch import save_file

        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return None
        tensors = {f"{key}/{name}": tensor for key, item in waiting.items() for name, tensor in item.tensors.items()}
        facts = {key: {**item.facts, "tensors": list(item.tensors)} for key, item in waiting.items()}
        name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        aside, final = self.folder / f".{name}.part", self.folder / f"{name}{SUFFIX}"
        try:
            save_file(tensors, aside, metadata={"items": json.dumps(facts)})
            os.replace(aside, final)
        finally:
            aside.unlink(missing_ok=True)
        self.num_written += len(waiting)
        return final

    def _place(self, key: str) -> str | None:
        """Name of the shard that holds a key; others may have written it since the last look."""
        if key not in self._places:
            self._refresh()
        return self._places.get(key)

    def _refresh(self) -> None:
        """Take the shards in that came since the last look."""
        changed = self.folder.stat().st_mtime_ns if self.folder.is_dir() else self._changed
        if changed == self._changed:
            return
        settled = time.time_ns() - changed > SETTLED  # within a tick of the clock, the folder may change again unseen
        self._changed = changed if settled else -1
        present = {file.name for file in self.folder.glob(f"*{SUFFIX}")}
        for name in self._known - present:
            self._forget(name)
        for name in sorted(present - self._known):
            self._known.add(name)
            try:
                self._places |= dict.fromkeys(self._shard(name)[1], name)
            except _unreadable():
                self._forget(name)

    def _forget(self, name: str) -> None:
        """A shard that is gone; a damaged one stays known, so that it isn't looked at again."""
        self._open.pop(name, None)
        self._places = {key: place for key, place in self._places.items() if place != name}

    def _shard(self, name: str) -> tuple[Any, dict[str, Any]]:
        """An open shard, and the facts of its items."""
        from safetensors import safe_open

        if self._process != os.getpid():  # a forked worker has files of its own
            self._process, self._open = os.getpid(), OrderedDict()
        if name not in self._open:
            shard = safe_open(self.folder / name, framework="pt")
            self._open[name] = (shard, json.loads(shard.metadata()["items"]))
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def _mark(self, name: str) -> None:
        """Tell that a shard is in use, every few minutes; what isn't goes first when there is too much."""
        now = time.monotonic()
        if now - self._marked.get(name, -MARK_EVERY) >= MARK_EVERY:
            self._marked[name] = now
            with suppress(OSError):  # somebody else's file
                os.utime(self.folder / name)


def _unreadable() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    return (SafetensorError, OSError, KeyError, TypeError, ValueError)
