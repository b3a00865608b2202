"""What a training step of LLaVA costs: our composition beside transformers' own class, with the same weights.

    python benchmarks/llava.py                       # CPU, float32, 4 x 704 tokens of which 4 x 128 are supervised
    python benchmarks/llava.py --busy                # on a machine with other work: CPU time of one thread
    python benchmarks/llava.py --device cuda --json llava.json

Both do a forward and a backward pass over the same batch; the tower is frozen, projector and language model learn.
They take turns, and ratios are medians over the turns. Memory is the peak of what one step allocates (torch.profiler;
weights were there before), and the peak of resident memory of a process that runs one of them alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _llava_shape import PATCH, LlavaShape, write_llava
from _timing import allocated_peak, machine, median_ratio, peak_rss, take_turns

from mmunify.checkpoint import Bundle, import_model, load_bundle
from mmunify.recipe import Recipe
from mmunify.types import Attention, Batch, MediaBatch

Step = Callable[[], torch.Tensor]
GRID = 24
CONTENDERS = ("ours", "theirs")


@dataclass(frozen=True, kw_only=True)
class Shape(LlavaShape):
    """Sizes of the comparison."""

    rows: int = 4
    words: int = 128


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What one run found: medians in milliseconds, MiB, and how ours stands to theirs."""

    machine: str
    milliseconds: dict[str, float]
    loss: dict[str, float]
    allocated_mib: dict[str, float]
    peak_rss_mib: dict[str, float]
    times_faster: float
    allocated_ratio: float
    loss_difference: float


def make_batch(shape: Shape, device: str) -> Batch:
    """A picture, then words that are all supervised, in every row."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.full((shape.rows, GRID * GRID), shape.vocabulary - 1)
    words = torch.randint(3, shape.vocabulary - 1, (shape.rows, shape.words), generator=generator)
    ids = torch.cat([picture, words], dim=1)
    documents, zeros = torch.arange(shape.rows)[:, None].expand_as(ids), torch.zeros_like(ids)
    media = MediaBatch(
        values=torch.randn(shape.rows, 1, 3, GRID * PATCH, GRID * PATCH, generator=generator),
        slots=ids == shape.vocabulary - 1,
        document=torch.arange(shape.rows),
        extent=torch.full((shape.rows, 2), GRID * PATCH),
    )
    batch = Batch(
        input_ids=ids,
        labels=torch.cat([torch.full_like(picture, -100), words], dim=1),
        attention=Attention(document=documents, segment=zeros, full=zeros.bool(), valid=torch.ones_like(ids).bool()),
        position_ids=torch.arange(ids.shape[1]).expand_as(ids),
        task=torch.zeros(shape.rows, dtype=torch.long),
        media={"image": media},
        keys=tuple(range(shape.rows)),
    )
    return batch.to(device)


def write_ours(folder: Path) -> None:
    """The same weights as a bundle. Layers of the tower above the one that is read are let go, as in our recipes."""
    whole = import_model(folder)
    tree = whole.recipe.to_dict()
    tree["model"]["encoders"]["image"]["pooled"] = "cls"
    recipe = Recipe.from_dict(tree)
    model = recipe.build(training=False)
    tensors = whole.model.state_dict()
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    Bundle(recipe, model).save(folder / "ours")


def build_ours(folder: Path, batch: Batch, device: str) -> Step:
    """Our step, with the weights of the folder."""
    model = load_bundle(folder / "ours").model.to(device)
    model.encoders.requires_grad_(False)
    return step_of(model.train(), lambda: model(batch).total)


def build_theirs(folder: Path, batch: Batch, device: str) -> Step:
    """Their step."""
    from transformers import LlavaForConditionalGeneration

    model: Any = LlavaForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa").to(device)
    model.model.vision_tower.requires_grad_(False)
    pixels: Any = batch.media["image"].values
    arguments = {"input_ids": batch.input_ids, "labels": batch.labels, "pixel_values": pixels[:, 0]}
    return step_of(model.train(), lambda: model(**arguments, use_cache=False).loss)


def step_of(model: torch.nn.Module, forward: Step) -> Step:
    """Forward and backward pass; the gradients are let go at the end."""

    def step() -> torch.Tensor:
        loss = forward()
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.detach()

    return step


BUILDERS = {"ours": build_ours, "theirs": build_theirs}


def rss_alone(name: str, folder: Path, device: str) -> float:
    """Peak of resident memory, in MiB, of a process that makes one step of one contender."""
    command = [sys.executable, __file__, "--alone", name, "--folder", str(folder), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def compare(shape: Shape, device: str, turns: int, clock: Callable[[], float]) -> Comparison:
    """Everything about both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_llava(folder, shape, GRID, shape.vocabulary - 1)
        write_ours(folder)
        (folder / "shape.json").write_text(json.dumps(asdict(shape)))
        batch = make_batch(shape, device)
        steps = {each: BUILDERS[each](folder, batch, device) for each in CONTENDERS}
        first: dict[str, Any] = {each: allocated_peak(steps[each]) for each in CONTENDERS}
        loss = {each: float(answer) for each, (_, answer) in first.items()}
        allocated = {each: peak / 2**20 for each, (peak, _) in first.items()}
        times = take_turns(steps, turns, clock, warm_up=0)
        rss = {each: rss_alone(each, folder, device) for each in CONTENDERS}
    return Comparison(
        machine=machine(),
        milliseconds={each: 1e3 * statistics.median(times[each]) for each in CONTENDERS},
        loss=loss,
        allocated_mib=allocated,
        peak_rss_mib=rss,
        times_faster=median_ratio(times["theirs"], times["ours"]),
        allocated_ratio=allocated["ours"] / allocated["theirs"],
        loss_difference=abs(loss["ours"] - loss["theirs"]),
    )


def table(found: Comparison) -> str:
    """Markdown."""
    lines = ["| | ms per step | MiB allocated by a step | MiB resident | loss |", "|---|---:|---:|---:|---:|"]
    for each in CONTENDERS:
        numbers = f"{found.milliseconds[each]:.0f} | {found.allocated_mib[each]:.0f} | {found.peak_rss_mib[each]:.0f}"
        lines.append(f"| {each} | {numbers} | {found.loss[each]:.6f} |")
    lines.append(
        f"\nours is {found.times_faster:.2f} times as fast, allocates {found.allocated_ratio:.2f} times as much; "
        f"losses differ by {found.loss_difference:.1e}"
    )
    return "\n".join(lines)


def run_alone(name: str, folder: Path, device: str) -> None:
    """One step of one contender, for its resident memory."""
    shape = Shape(**json.loads((folder / "shape.json").read_text()))
    step = BUILDERS[name](folder, make_batch(shape, device), device)
    step()
    print(peak_rss() / 2**20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--hidden", type=int, default=Shape.hidden)
    parser.add_argument("--depth", type=int, default=Shape.depth)
    parser.add_argument("--vocabulary", type=int, default=Shape.vocabulary)
    parser.add_argument("--busy", action="store_true", help="count the process's own CPU time (one thread)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        run_alone(args.alone, args.folder, args.device)
        return
    if args.busy:
        torch.set_num_threads(1)
    shape = Shape(hidden=args.hidden, depth=args.depth, vocabulary=args.vocabulary)
    found = compare(shape, args.device, args.turns, time.process_time if args.busy else time.perf_counter)
    print(f"{found.machine}\n\n{table(found)}")
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
