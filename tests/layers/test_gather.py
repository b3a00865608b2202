"""Rows of several processes: with gradients, and with uneven numbers of rows."""

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from mmunify import losses
from mmunify.layers.gather import gather_rows

ROOT = Path(__file__).parents[2]
ROWS = (3, 0, 1)


def pairs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, sum(ROWS), 5, generator=generator)


def test_one_process_keeps_its_rows():
    rows = torch.randn(2, 3)
    gathered, first = gather_rows(rows)
    assert gathered is rows and first == 0


def test_three_uneven_processes_equal_one(tmp_path):
    """Loss and gradients of the contrastive loss; the second process has no pair at all."""
    command = [sys.executable, "-m", "tests.layers.test_gather", str(tmp_path)]
    workers = [subprocess.Popen([*command, str(rank)], cwd=ROOT, stderr=subprocess.PIPE) for rank in range(len(ROWS))]
    errors = [worker.communicate()[1].decode()[-2000:] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], errors
    left, right = (rows.requires_grad_() for rows in pairs().unbind())
    scale = torch.tensor(3.0, requires_grad=True)
    whole = losses.contrastive(left, right, scale)
    whole.backward()
    made = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(ROWS))]
    torch.testing.assert_close(torch.stack([m["loss"] for m in made]).sum(), whole.detach())
    torch.testing.assert_close(torch.cat([m["left"] for m in made]), left.grad)
    torch.testing.assert_close(torch.cat([m["right"] for m in made]), right.grad)
    torch.testing.assert_close(torch.stack([m["scale"] for m in made]).sum(), scale.grad)


def work(folder: Path, rank: int) -> None:
    """One process: its own pairs against those of all."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(ROWS))
    first = sum(ROWS[:rank])
    left, right = (rows[first : first + ROWS[rank]].clone().requires_grad_() for rows in pairs().unbind())
    scale = torch.tensor(3.0, requires_grad=True)
    all_left, start = gather_rows(left)
    all_right, _ = gather_rows(right)
    assert start == first and len(all_left) == sum(ROWS)
    loss = losses.contrastive(left, right, scale, all_left, all_right, start)
    loss.backward()
    kept = {"loss": loss.detach(), "left": left.grad, "right": right.grad, "scale": scale.grad}
    torch.save(kept, folder / f"{rank}.pt")
    dist.barrier()  # a process that leaves early can bring the others down
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)  # a thread of gloo or autograd that asks for the interpreter's lock at its end brings the process down
