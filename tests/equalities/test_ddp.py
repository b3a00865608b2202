"""Two processes are one process with twice the batch: counts are reduced before dividing, every rank takes part."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import mmunify.train.module
from mmunify.train.folder import main_process
from mmunify.train.stages import train
from tests.train.small import small_recipe

ROOT = Path(__file__).parents[2]


class Gradients(Callback):
    """Keeps the gradients of every step."""

    def __init__(self) -> None:
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.model.named_parameters()
        self.steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})


def build_sgd(groups, betas, eps):
    return torch.optim.SGD(groups)


def train_split(folder: Path, llama: str, processes: int, accumulate: int) -> None:
    """Train and keep gradients and weights in `folder`."""
    trainer = {"accelerator": "cpu", "devices": processes, **({"strategy": "ddp"} if processes > 1 else {})}
    recipe = small_recipe(llama, trainer=trainer)
    recipe.model.tuners[0]["dropout"] = 0.0
    for stage in recipe.stages:
        stage.batch_size, stage.accumulate, stage.steps = 8 // processes // accumulate, accumulate, 5
        stage.clip, stage.optim.lr = 0.0, 0.1
    kept = Gradients()
    bundle = train(recipe, folder, callbacks=[kept], progress=False)
    if main_process():
        torch.save({"gradients": kept.steps, "weights": bundle.model.state_dict()}, folder / "kept.pt")


@pytest.fixture(scope="module")
def whole(llama_folder, tmp_path_factory):
    """One process, one batch per step."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmunify.train.module.build_adamw", build_sgd)
        train_split(folder, str(llama_folder), 1, 1)
    return torch.load(folder / "kept.pt", weights_only=True)


def check_equal(split, whole) -> None:
    assert len(split["gradients"]) == len(whole["gradients"]) == 10
    for other, step in zip(split["gradients"], whole["gradients"], strict=True):
        torch.testing.assert_close(other, step, rtol=0, atol=1e-6)
    torch.testing.assert_close(split["weights"], whole["weights"], rtol=0, atol=1e-6)
    assert max(float(grad.abs().max()) for grad in whole["gradients"][0].values()) > 1e-3


def test_accumulated_steps_equal_whole_ones(whole, llama_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mmunify.train.module.build_adamw", build_sgd)
    train_split(tmp_path / "run", str(llama_folder), 1, 4)
    check_equal(torch.load(tmp_path / "run" / "kept.pt", weights_only=True), whole)


def test_two_processes_equal_one(whole, llama_folder, tmp_path):
    """Each accumulates two batches; some of them hold no picture, so the adapter takes part on a blank one."""
    arguments = [str(tmp_path / "run"), str(llama_folder), "2", "2"]
    # A process of its own, as the launcher starts the second one by running the same command again.
    done = subprocess.run(
        [sys.executable, "-m", "tests.equalities.test_ddp", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_equal(torch.load(tmp_path / "run" / "kept.pt", weights_only=True), whole)


if __name__ == "__main__":
    mmunify.train.module.build_adamw = build_sgd
    train_split(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
