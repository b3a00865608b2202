"""A process of a run that dies takes the others with it, at once, and everybody reads which one it was and why.

A process that fails leaves its last words in `<run>/ranks/`; the others look there. One that is killed can't: the
process that launched it sees how it ended, and the launched ones see that their launcher is gone.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmunify.errors import TrainingError

LOOK_EVERY = 0.1
"""Seconds between two looks at the others."""
PATIENCE = 1.0
"""Seconds that a process with an error waits for news of another one's death."""
GRACE = 2.0
"""Seconds that a process has to end by itself once another one is dead."""


class RankWatch:
    """Watches the other processes while a stage runs.

    Args:
        folder: of the run, which all processes see.
        rank: of this process.
        children: gives the processes that this one has launched: ranks 1, 2, ... of this machine.
    """

    def __init__(
        self, folder: Path, rank: int, children: Callable[[], Sequence[subprocess.Popen]] = lambda: ()
    ) -> None:
        self.folder, self.rank, self.children = folder / "ranks", rank, children
        self._parent, self._start = os.getppid(), time.time()
        self._is_over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch inside the `with` block; what is raised there becomes this process's last words.

        Raises:
            TrainingError: another process died; what happened to this one was only the consequence.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file(self.rank).unlink(missing_ok=True)
        thread = threading.Thread(target=self._watch, daemon=True, name="rank-watch")
        thread.start()
        try:
            yield
        except BaseException as error:
            found = self._patiently_dead_rank()
            if found is not None:
                raise TrainingError(f"rank {found[0]} died: {found[1]}") from error
            self._file(self.rank).write_text(last_words(error))
            raise
        finally:
            self._is_over.set()
            thread.join()

    def dead_rank(self) -> tuple[int, str] | None:
        """Another process that failed since the watch began, with its last words."""
        for rank, child in enumerate(self.children(), start=1):
            if child.poll() and not self._file(rank).exists():
                self._file(rank).write_text(how_it_ended(child.returncode))
        if self.rank and os.getppid() != self._parent and not self._file(0).exists():
            self._file(0).write_text("the process that launched the others is gone")
        for file in sorted(self.folder.glob("rank-*.txt")):
            rank = int(file.stem.removeprefix("rank-"))
            if rank != self.rank and file.stat().st_mtime >= self._start - 1:
                return rank, file.read_text()
        return None

    def _patiently_dead_rank(self) -> tuple[int, str] | None:
        """The same, given a moment: a broken connection is seen before the end of the process that broke it."""
        for _ in range(int(PATIENCE / LOOK_EVERY)):
            found = self.dead_rank()
            if found is not None or not self._is_one_of_many():
                return found
            time.sleep(LOOK_EVERY)
        return None

    def _is_one_of_many(self) -> bool:
        return self.rank > 0 or bool(self.children())

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_EVERY):
            found = self.dead_rank()
            if found is not None:
                self._give_up(*found)

    def _give_up(self, rank: int, words: str) -> None:
        print(f"error: rank {rank} died: {words}\nrank {self.rank} stops", file=sys.stderr, flush=True)  # noqa: T201
        if not self._is_over.wait(GRACE):
            for child in self.children():
                child.kill()
            os._exit(1)

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.txt"


def last_words(error: BaseException) -> str:
    """An error with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def how_it_ended(code: int) -> str:
    """What an exit code says: negative ones are signals."""
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
