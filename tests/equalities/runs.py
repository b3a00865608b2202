"""Runs in processes of their own, as users start them: `python -m tests.equalities.runs SPEC.json`.

A spec is `{"llama": folder, "runs": [{"out": folder, ...}]}`; all runs of a spec share their processes, since starting
one takes seconds.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

import mmunify.train.module
from mmunify.train.folder import FOLDER_VARIABLE, main_process
from mmunify.train.stages import train
from tests.train.small import small_recipe, wide_recipe

ROOT = Path(__file__).parents[2]
RECIPES = {"small": small_recipe, "wide": wide_recipe}
MOE = {"name": "lora_moe", "match": "*.mlp.*_proj", "rank": 2, "num_experts": 2, "balance": "cv_squared"}
LORA = {"name": "lora", "match": "*.mlp.*_proj", "rank": 2}


class Diary(Callback):
    """Writes down what every step did, so that nothing is lost when the process is killed."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "diary.jsonl"

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_global_zero:
            loss = float(pl_module.step_metrics["loss"]).hex()
            line = {"step": f"{pl_module.stage.name} {batch_idx}", "loss": loss, "samples": batch.sample_ids}
            line["cosines"] = {k: v for k, v in pl_module.step_metrics.items() if k.startswith("gradient_cosine/")}
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def on_train_end(self, trainer, pl_module):
        if trainer.world_size == 1:
            torch.save(pl_module.optimizers().state_dict(), self.file.parent / f"{pl_module.stage.name}.optimiser")


class Quietest(Callback):
    """Keeps the smallest gradient other than zero that every element had in a stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        self.seen = {n: torch.full_like(p, torch.inf) for n, p in pl_module.model.named_parameters() if p.requires_grad}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for name, parameter in pl_module.model.named_parameters():
            if parameter.grad is not None:
                size = parameter.grad.abs()
                self.seen[name] = torch.where(size > 0, torch.minimum(size, self.seen[name]), self.seen[name])

    def on_train_end(self, trainer, pl_module):
        torch.save(self.seen, self.folder / f"{pl_module.stage.name}.quietest")


class Kill(Callback):
    """Kills its process in the middle of a step."""

    def __init__(self, rank: int, stage: str, step: int) -> None:
        self.where = (rank, stage, step)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if self.where == (trainer.global_rank, pl_module.stage.name, len(pl_module.curve) - 1):
            os.kill(os.getpid(), signal.SIGKILL)


class FillDisk(Callback):
    """From a step on, no file of a process may grow."""

    def __init__(self, rank: int, stage: str, step: int) -> None:
        self.where = (rank, stage, step)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.where == (trainer.global_rank, pl_module.stage.name, batch_idx):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


class Poison(Callback):
    """Makes the gradients of one step of one process infinite or no numbers at all."""

    def __init__(self, rank: int, stage: str, step: int) -> None:
        self.where = (rank, stage, step)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.where == (trainer.global_rank, pl_module.stage.name, batch_idx):
            pl_module.model.weights["text"] = float("nan")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.where == (trainer.global_rank, pl_module.stage.name, batch_idx):
            del pl_module.model.weights["text"]


class Parts(Callback):
    """Writes down how many numbers a process holds between steps, of those that there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        model, zero = pl_module.model, trainer.strategy.optimizers[0]
        split = {name: p for name, p in model.named_parameters() if hasattr(p, "ds_tensor")}
        whole = {name: p for name, p in model.named_parameters() if name not in split}
        states = [value for state in zero.optimizer.state.values() for value in state.values() if value.ndim]
        found = {
            "all": sum(p.ds_numel for p in split.values()),
            "tensors": len(split),
            "parts": sum(p.ds_tensor.numel() for p in split.values()),
            "gathered": sum(p.numel() for p in split.values()),
            "whole": sorted({name.split(".")[0] for name in whole}),
            "learning": sum(p.ds_numel for p in split.values() if p.requires_grad),
            "gradients": zero.grad_partitions_flat_buffer.numel(),
            "states": sum(value.numel() for value in states),
            "means": 0
            if pl_module.average is None
            else sum(p.ds_tensor.numel() for p in pl_module.average.parameters()),
        }
        (self.folder / f"parts-{trainer.global_rank}.json").write_text(json.dumps(found))


def run(llama: str, out: str, processes: int = 1, sgd: bool = False, **options) -> None:
    """Train a recipe of `RECIPES`.

    Options: recipe, tuner, dropout, accumulate, workers, packing, batch_tokens, kill, fill, poison, resume, ema,
    trainer, steps, lr, eps, cosine, clip, learns, allow_idle, dtype, parts, batch.
    """
    build = mmunify.train.module.build_adamw
    trainer = {"accelerator": "cpu", "devices": processes, **options.get("trainer", {})}
    recipe = RECIPES[options.get("recipe", "small")](llama, trainer=trainer)
    recipe.model.tuners = [{**options.get("tuner", LORA), "dropout": options.get("dropout", 0.0)}]
    for stage in recipe.stages:
        stage.accumulate, stage.num_workers = options.get("accumulate", 1), options.get("workers", 0)
        stage.batch_size, stage.steps = (
            options.get("batch", 8) // processes // stage.accumulate,
            options.get("steps", 3),
        )
        stage.clip = options.get("clip", 0.0)
        stage.ema, stage.optim.lr = options.get("ema", 0.0), options.get("lr", 0.1)
        stage.packing, stage.batch_tokens = options.get("packing", False), options.get("batch_tokens")
        stage.optim.eps, stage.gradient_cosine = options.get("eps", 1e-8), options.get("cosine", 0)
        stage.learns = options.get("learns", stage.learns)
        stage.allow_idle = options.get("allow_idle", stage.allow_idle)
    if "dtype" in options:
        recipe.model.backbone["dtype"] = options["dtype"]
    Path(out).mkdir(parents=True, exist_ok=True)
    harms = {"kill": Kill, "fill": FillDisk, "poison": Poison}
    harm = [each(*options[name]) for name, each in harms.items() if options.get(name)]
    harm += [Parts(Path(out))] if options.get("parts") else []
    callbacks = [Diary(Path(out)), *harm, *([Quietest(Path(out))] if processes == 1 else [])]
    if not main_process():
        os.environ[FOLDER_VARIABLE] = out
    mmunify.train.module.build_adamw = (lambda groups, *_: torch.optim.SGD(groups)) if sgd else build
    try:
        bundle = train(
            recipe, out, callbacks=callbacks, progress=False, save_every=2, resume=options.get("resume", False)
        )
    finally:
        mmunify.train.module.build_adamw = build
    if main_process():
        torch.save(bundle.model.state_dict(), Path(out) / "weights.pt")


def start(folder: Path, llama: str, *runs: dict, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run a spec in a process of its own, which launches the others."""
    spec = folder / "spec.json"
    spec.write_text(json.dumps({"llama": str(llama), "runs": runs}))
    return subprocess.run(
        [sys.executable, "-m", "tests.equalities.runs", str(spec)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def weights(folder: Path) -> dict:
    return torch.load(folder / "weights.pt", weights_only=True)


def diary(folder: Path) -> dict[str, dict]:
    """What every step did; a step that was done again counts as it was done last."""
    lines = [json.loads(line) for line in (folder / "diary.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


if __name__ == "__main__":
    spec = json.loads(Path(sys.argv[1]).read_text())
    for each in spec["runs"]:
        run(spec["llama"], **each)
