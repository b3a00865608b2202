"""What training costs: mmunify's own loop beside transformers' LLaVA class with PEFT's LoRA in a plain loop.

    python benchmarks/training.py                                  # CPU, float32, batch 8: all comparisons
    python benchmarks/training.py --only short --turns 5
    python benchmarks/training.py --device cuda --precision bf16-mixed --json training.json

Both have the same weights and train the same tensors, LoRA of the same rank on the same linears and the projector, on
the same samples. Their words are real captions and questions: `--fixtures` or MMUNIFY_FIXTURES names the folder.
Workload "short" has 64 places per picture and 30 % of samples without one, "long" 576 places in every sample. The peer
takes random batches of 8, and as another contender batches of samples of similar length; ours takes the same random
batches, one sample per row and packed.

All take turns: a step of one follows a step of the other, so that what else the machine does hits all. Times are those
of whole steps with the optimiser, added up over the batches of a turn; ratios are medians over the turns. Ours runs as
in `mmunify train`: `StageModule` under Lightning, with its logs. "cache" is another recipe, whose tower takes most of a
step: live beside the feature cache, reading included.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from _cache_gain import CacheGain, CacheShape, compare_cache
from _conversations import Workload, write_samples
from _pair import LEARNS, RATE, PlainLoop, Setting, Shape, load_ours, load_theirs, our_loss, their_batch, write_theirs
from _timing import Step, allocated_peak, machine, take_turns
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmunify.checkpoint import Bundle
from mmunify.data.packing import RowPacker
from mmunify.recipe import Stage
from mmunify.train.loader import WindowLoader, stage_batches, stage_samples
from mmunify.train.module import StageModule
from mmunify.train.speed import SpeedCallback
from mmunify.train.trainer import make_loggers, make_trainer
from mmunify.train.window import Window
from mmunify.types import Batch

BATCH = 8
SHORT = Workload(name="short", grid=8, blind=0.3)
LONG = Workload(name="long", grid=24, turns=(1, 4), captions=5)
PLAIN, PACKED, THEIRS, GROUPED = "ours", "ours, packed", "theirs", "theirs, grouped by length"
FIXTURES = Path(__file__).parents[2] / "shared" / "fixtures"

TheirBatch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was found of one workload.

    Attributes:
        workload: its name.
        samples: of a turn.
        seconds: of a turn by contender: medians.
        ratios: contenders of theirs / of ours -> seconds over seconds in every turn.
        positions: of a turn by contender, padding included.
        real: positions without padding; `supervised` of them are learned.
        allocated_mib: most that a step allocates at once, in the batch with most positions.
        loss: of the first batch, before any step.
        gradient_difference: largest difference there between a LoRA gradient of ours and theirs, over the largest one.
        loading: samples per second that two workers read.
    """

    workload: str
    samples: int
    seconds: dict[str, float]
    ratios: dict[str, list[float]]
    positions: dict[str, int]
    real: int
    supervised: int
    allocated_mib: dict[str, float]
    loss: dict[str, float]
    gradient_difference: float
    loading: float

    @property
    def loading_ratio(self) -> float:
        """How much faster data is read than the faster of our contenders trains on it."""
        return self.loading * min(self.seconds[PLAIN], self.seconds[PACKED]) / self.samples


@dataclass(frozen=True, kw_only=True)
class Data:
    """The batches of a turn, by contender."""

    ours: dict[str, list[Batch]]
    theirs: dict[str, list[TheirBatch]]
    real: int
    supervised: int

    @property
    def positions(self) -> dict[str, int]:
        """Of all batches, padding included, by contender."""
        ours = {name: sum(batch.input_ids.numel() for batch in found) for name, found in self.ours.items()}
        return ours | {name: sum(b["input_ids"].numel() for b in found) for name, found in self.theirs.items()}


def make_data(bundle: Bundle, stage: Stage, batches: int, image_id: int) -> Data:
    """The stage's first samples for all contenders."""
    packer, samples = RowPacker(bundle.processor(), packing=True), stage_samples(stage, [0])
    examples = [packer.encode(samples[number]) for number in range(batches * BATCH)]
    random, grouped = divide(examples), divide(sorted(examples, key=lambda example: len(example.input_ids)))
    return Data(
        ours={PLAIN: [packer.collate(some) for some in random], PACKED: [packer.batches(some)[0] for some in random]},
        theirs={
            THEIRS: [their_batch(some, image_id) for some in random],
            GROUPED: [their_batch(some, image_id) for some in grouped],
        },
        real=sum(len(example.input_ids) for example in examples),
        supervised=sum(label != -100 for example in examples for label in example.labels[1:]),
    )


def divide(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Batches of consecutive items."""
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


# ------------------------------------------------------------------------------------------- turns


class Turns(pl.Callback):
    """Times our steps as they run, and lets the others have their turn behind them.

    Args:
        names: contender of every step of ours.
        others: number of a round -> steps of the others; a round is a step of each.
        clock: of all.

    Attributes:
        times: contender -> seconds of every round.
    """

    def __init__(
        self, names: Sequence[str], others: Callable[[int], Mapping[str, Step]], clock: Callable[[], float]
    ) -> None:
        self.names, self.others, self.clock = names, others, clock
        self.times: dict[str, list[float]] = {}
        self.start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first step begins."""
        self.start = self.clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step ends, with what Lightning and our callbacks do about it; behind the last of a round come others."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        each = len(set(self.names))
        self._add({self.names[batch_idx]: [self.clock() - self.start]})
        if batch_idx % each == each - 1:
            self._add(take_turns(self.others(batch_idx // each), 1, self.clock, warm_up=0))
        self.start = self.clock()

    def _add(self, found: Mapping[str, list[float]]) -> None:
        for name, seconds in found.items():
            self.times.setdefault(name, []).extend(seconds)


def take_all_turns(model: nn.Module, loop: PlainLoop, data: Data, turns: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of every turn by contender: a turn is all batches, each taken by all; one round before it warms up."""
    count = len(data.theirs[THEIRS])
    order = [0, *(number for _ in range(turns) for number in range(count))]

    def others(number: int) -> dict[str, Step]:
        return {name: (lambda b=batches[order[number]]: loop.step(b)) for name, batches in data.theirs.items()}

    watch = Turns([name for _ in order for name in data.ours], others, loop.setting.clock)
    run_ours(model, [Window([b[number]]) for number in order for b in data.ours.values()], watch, loop.setting, folder)
    return {
        name: [sum(seconds[start : start + count]) for start in range(1, len(seconds), count)]
        for name, seconds in watch.times.items()
    }


def run_ours(model: nn.Module, windows: Sequence[Window], watch: Turns, setting: Setting, folder: Path) -> None:
    """Our training loop over the windows."""
    loader: Any = DataLoader(windows, batch_size=None)  # type: ignore[arg-type]
    trainer = make_trainer(
        {"accelerator": "gpu" if setting.device == "cuda" else "cpu", "devices": 1, "precision": setting.precision},
        steps=len(windows),
        callbacks=[SpeedCallback(), watch],
        loggers=make_loggers(folder, "benchmark", ["csv"]),
        folder=folder,
    )
    trainer.fit(StageModule(model, benchmark_stage(steps=len(windows)), lambda rank, world, pin: loader))


def benchmark_stage(**changes: Any) -> Stage:
    """A stage whose rate stays; the rest is our default."""
    stage = Stage(name="benchmark", learns=LEARNS, batch_size=BATCH, **changes)
    return replace(stage, optim=replace(stage.optim, lr=RATE, warmup=0.0, schedule="constant"))


# ------------------------------------------------------------------------------------------- one workload


def compare(workload: Workload, shape: Shape, setting: Setting, batches: int, turns: int) -> Comparison:
    """Everything about one workload."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_samples(folder, setting.fixtures, workload, batches * BATCH)
        write_theirs(folder / "theirs", shape, workload.grid, setting.fixtures)
        bundle, loop = load_ours(folder / "theirs"), PlainLoop(load_theirs(folder / "theirs"), setting)
        model = bundle.model.to(setting.device)
        stage = benchmark_stage(steps=1, packing=True, num_workers=2, data=[{"name": "jsonl", "path": str(path)}])
        data = make_data(bundle, stage, batches, shape.image_id)
        loss, gradient_difference = check_equal(model, loop, data)
        allocated = measure_memory(model, loop, data)
        times = take_all_turns(model, loop, data, turns, folder)
        loading = loading_rate(stage, bundle)
    return Comparison(
        workload=workload.name,
        samples=batches * BATCH,
        seconds={name: statistics.median(found) for name, found in times.items()},
        ratios={f"{a} / {b}": _ratios(times[a], times[b]) for a in data.theirs for b in data.ours},
        positions=data.positions,
        real=data.real,
        supervised=data.supervised,
        allocated_mib=allocated,
        loss=loss,
        gradient_difference=gradient_difference,
        loading=loading,
    )


def _ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def check_equal(model: nn.Module, loop: PlainLoop, data: Data) -> tuple[dict[str, float], float]:
    """Losses of the first batch, and how far our gradients of the LoRA are from theirs."""
    losses, gradients = {}, {}
    for name, (holder, forward) in _passes(model, loop, data, 0).items():
        loss = forward()
        loss.backward()
        losses[name], gradients[name] = float(loss.detach()), torch.cat(list(_low_rank_gradients(holder)))
        holder.zero_grad()
    wanted = gradients[THEIRS]
    worst = max(float((gradients[name] - wanted).abs().max()) for name in data.ours)
    return losses, worst / float(wanted.abs().max())


def _low_rank_gradients(model: nn.Module) -> Iterator[Tensor]:
    """In an order that doesn't depend on what stands before the layer's number."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        place = name.partition(".layers.")[2].replace(".lora_A.default.weight", ".low_rank.a")
        place = place.replace(".lora_B.default.weight", ".low_rank.b")
        if ".low_rank." in place and parameter.grad is not None:
            found[place] = parameter.grad.detach().flatten().clone()
    return (found[place] for place in sorted(found))


def measure_memory(model: nn.Module, loop: PlainLoop, data: Data) -> dict[str, float]:
    """MiB that a forward and a backward pass allocate at once, for the batch where theirs is largest."""
    largest = max(range(len(data.theirs[THEIRS])), key=lambda i: data.theirs[THEIRS][i]["input_ids"].numel())
    found = {}
    for name, (holder, forward) in _passes(model, loop, data, largest).items():
        found[name] = allocated_peak(lambda forward=forward: forward().backward())[0] / 2**20
        holder.zero_grad()
    return found


def _passes(
    model: nn.Module, loop: PlainLoop, data: Data, number: int
) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Model and forward pass over a batch, by contender."""
    passes: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        name: (model, lambda batch=batches[number]: our_loss(model, batch, loop.setting))
        for name, batches in data.ours.items()
    }
    return {**passes, THEIRS: (loop.model, lambda: loop.loss(data.theirs[THEIRS][number]))}


def loading_rate(stage: Stage, bundle: Bundle, windows: int = 24) -> float:
    """Samples per second that the stage's workers hand out when nothing trains; starting them isn't counted."""
    loader = WindowLoader(
        stage_samples(stage, [0]),
        stage_batches(stage, bundle.processor()),
        batch_size=BATCH,
        steps=2 * stage.num_workers + windows,
        num_workers=stage.num_workers,
    )
    made = iter(loader)
    for _ in range(2 * stage.num_workers):  # those that were read while the workers started
        next(made)
    start = time.perf_counter()
    seen = sum(len(window.sample_ids) for window in made)
    return seen / (time.perf_counter() - start)


# ------------------------------------------------------------------------------------------- what is printed


def table(found: Comparison) -> str:
    """Markdown."""
    padding = {name: 1 - found.real / number for name, number in found.positions.items()}
    lines = [
        f"{found.workload}: {found.samples} samples, {found.real} positions, {found.supervised / found.real:.0%} of "
        "them supervised\n",
        "| | samples per second | padding | MiB allocated by a step | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, seconds in found.seconds.items():
        memory = f"{found.allocated_mib[name]:.0f}" if name in found.allocated_mib else ""
        loss = f"{found.loss[name]:.6f}" if name in found.loss else ""
        lines.append(f"| {name} | {found.samples / seconds:.2f} | {padding[name]:.0%} | {memory} | {loss} |")
    lines += ["", "| time | median | lowest | highest | memory |", "|---|---:|---:|---:|---:|"]
    for name, ratios in found.ratios.items():
        theirs, ours = (found.allocated_mib.get(side) for side in name.split(" / "))
        memory = f"{ours / theirs:.2f}" if theirs and ours else ""
        lines.append(f"| {name} | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} | {memory} |")
    lines.append(
        f"\nlargest difference of a gradient: {found.gradient_difference:.1e} of the largest gradient; two workers "
        f"read {found.loading:.0f} samples per second, {found.loading_ratio:.1f} times as many as are trained on"
    )
    return "\n".join(lines)


def cache_line(found: CacheGain) -> str:
    """A sentence."""
    return (
        f"cache: {found.live:.3f} s per step live (tower {found.tower_share:.0%}), {found.cached:.3f} s cached: "
        f"{found.gain:.2f} times as fast; losses and gradients are {'equal' if found.is_equal else 'NOT EQUAL'}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = _parse(arguments)
    clock = time.process_time if args.busy else time.perf_counter
    if args.busy:
        torch.set_num_threads(1)
    setting = Setting(fixtures=args.fixtures, device=args.device, precision=args.precision, clock=clock)
    sizes = {"vocabulary": args.vocabulary, "hidden": args.hidden, "depth": args.depth}
    results: dict[str, Any] = {"machine": machine()}
    for workload in (SHORT, LONG):
        if workload.name in args.only:
            batches = args.batches if workload is SHORT else max(1, args.batches // 2)
            found = compare(workload, Shape(**sizes), setting, batches, args.turns)
            results[workload.name] = asdict(found)
            print(f"\n{table(found)}", flush=True)
    if "cache" in args.only:
        gain = compare_cache(SHORT, CacheShape(**sizes), setting, max(1, args.batches // 4), args.turns)
        results["cache"] = asdict(gain)
        print(f"\n{cache_line(gain)}")
    print(f"\n{machine()}, {args.precision}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["short", "long", "cache"], choices=["short", "long", "cache"])
    parser.add_argument("--fixtures", type=Path, default=Path(os.environ.get("MMUNIFY_FIXTURES", FIXTURES)))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="of workload short; long takes half, cache a quarter")
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument("--depth", type=int, default=Shape.depth)
    parser.add_argument("--vocabulary", type=int, default=Shape.vocabulary)
    parser.add_argument("--busy", action="store_true", help="count the process's own CPU time (one thread)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
