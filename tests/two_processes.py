"""A function run by two processes that talk over gloo."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing as mp
from torch import distributed as dist


def run_in_two_processes(work: Callable[[int], Any], folder: Path) -> Any:
    """What `work(1)` gives here, while another process runs `work(0)`; an error of either is raised."""
    other = mp.spawn(_run_other, args=(work, folder), nprocs=1, join=False)
    found = _run_rank(1, work, folder)
    other.join()
    return found


def _run_other(rank: int, work: Callable[[int], Any], folder: Path) -> None:
    _run_rank(rank, work, folder)
    # Without the interpreter's own end: a thread of gloo or autograd that asks for the lock by then brings it down.
    os._exit(0)


def _run_rank(rank: int, work: Callable[[int], Any], folder: Path) -> Any:
    minute = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=minute)
    try:
        found = work(rank)
        dist.barrier()  # one that leaves early can bring the other down
        return found
    finally:
        dist.destroy_process_group()
