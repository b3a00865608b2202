import subprocess
import sys
import time

import pytest

from mmunify.errors import TrainingError
from mmunify.train.watch import RankWatch, how_it_ended


def child(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def test_a_quiet_run_leaves_nothing(tmp_path):
    with RankWatch(tmp_path, 0).watching():
        pass
    assert list((tmp_path / "ranks").iterdir()) == []


def test_an_error_becomes_last_words(tmp_path):
    with pytest.raises(ValueError, match="my own"), RankWatch(tmp_path, 0).watching():
        raise ValueError("my own")
    assert "ValueError: my own (" in (tmp_path / "ranks" / "rank-0.txt").read_text()
    assert RankWatch(tmp_path, 1).dead_rank()[0] == 0


def test_the_cause_is_named_not_the_consequence(tmp_path):
    """A process that notices the broken connection first still says who died."""
    dying = child("import os, signal, time; time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)")
    watch = RankWatch(tmp_path, 0, lambda: [dying])
    with (
        pytest.raises(TrainingError, match=r"rank 1 died: it was killed by SIGKILL \(out of memory\?\)"),
        watch.watching(),
    ):
        raise RuntimeError("connection closed by peer")


def test_a_process_that_hangs_is_ended(tmp_path):
    """The other rank waits in a collective operation for ever."""
    code = (
        "import sys, time; from mmunify.train.watch import RankWatch; from pathlib import Path\n"
        f"with RankWatch(Path({str(tmp_path)!r}), 1).watching(): print('ready', flush=True); time.sleep(60)"
    )
    hanging = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert hanging.stdout.readline() == "ready\n"
    time.sleep(0.1)
    (tmp_path / "ranks" / "rank-0.txt").write_text("MemoryError: too much")
    _, words = hanging.communicate(timeout=30)
    assert hanging.returncode == 1 and "error: rank 0 died: MemoryError: too much\nrank 1 stops" in words


def test_old_news_are_not_heard(tmp_path, monkeypatch):
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "rank-1.txt").write_text("long ago")
    watch = RankWatch(tmp_path, 0)
    watch._start += 100
    assert watch.dead_rank() is None


def test_exit_codes():
    assert how_it_ended(3) == "it ended with exit code 3"
    assert how_it_ended(-15) == "it was killed by SIGTERM"
