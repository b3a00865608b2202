"""`run_demo`: check a recipe, train it, measure it before and after, talk to it, and write down all of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mmunify.checkpoint import Bundle
from mmunify.demo.dialogue import hold_dialogue, make_scene
from mmunify.demo.record import Record, write_record
from mmunify.evaluate.report import print_table
from mmunify.evaluate.run import evaluate
from mmunify.infer.assistant import Assistant
from mmunify.recipe import Recipe, load_recipe

RECIPE = "tiny/demo"
NUM_SAMPLES = 40

LEAST_STEPS = 20
"""Steps that a stage keeps on a slow machine."""

OVERHEAD = 1.2
"""Time of a training step over that of its forward and backward pass: the optimiser and the data take their share."""


def run_demo(
    out: Path | None = None, seconds: float = 90, progress: bool = True, num_samples: int = NUM_SAMPLES
) -> Path:
    """Run the demo.

    Args:
        out: folder for everything that it writes; one that holds something is left alone and a number is added.
        seconds: for training; on a machine where the recipe takes longer, its stages are shortened.
        progress: whether to print what happens.
        num_samples: samples per task of both evaluations.

    Returns:
        The folder.

    Raises:
        RecipeError: the recipe has faults.
    """
    folder, clock = free_folder(out or Path("demo")), Clock(progress)
    with clock("check the recipe"):
        recipe = load_recipe(RECIPE)
        start = Bundle(recipe, recipe.build())
    with clock("measure before training"):
        before = evaluate(start, num_samples=num_samples, progress=progress, baselines=False)
    with clock("train"):
        bundle = _train(start, folder / "run", seconds, progress)
    with clock("measure after training"):
        after = evaluate(bundle, num_samples=num_samples, progress=progress)
    with clock("talk"):
        scene = make_scene()
        exchanges = hold_dialogue(Assistant.load(bundle), scene, folder / "artifacts")
    record = Record(
        recipe=bundle.recipe, before=before, after=after, scene=scene, exchanges=exchanges, seconds=clock.seconds
    )
    write_record(record, folder)
    if progress:
        print_table(after)
    clock.say(f"read {folder / 'report.md'} and look at {folder / 'sheet.png'}")
    return folder


def _train(start: Bundle, folder: Path, seconds: float, progress: bool) -> Bundle:
    from mmunify.train.stages import train

    recipe = start.recipe
    needed = time_step(start) * sum(stage.steps for stage in recipe.stages)
    return train(shorten(recipe, seconds / needed), out=folder, progress=progress)


def time_step(bundle: Bundle) -> float:
    """Seconds that one training step of the recipe's longest stage takes on this machine.

    Args:
        bundle: its model is left as the stage would have it: what learns there learns, the rest is frozen.
    """
    import torch

    from mmunify.train.learns import apply_learns
    from mmunify.train.loader import stage_samples

    stage = max(bundle.recipe.stages, key=lambda each: each.steps)
    apply_learns(bundle.model, stage.learns)
    samples, processor = stage_samples(stage, [0]), bundle.processor()
    batch = processor([samples[index] for index in range(stage.batch_size)])
    mixed = str(bundle.recipe.trainer.get("precision", "32")).startswith("bf16")
    taken = []
    for _ in range(3):  # the first one warms up
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            bundle.model(batch).total.backward()
        taken.append(time.perf_counter() - began)
        bundle.model.zero_grad(set_to_none=True)
    return sum(taken[1:]) / 2 * OVERHEAD


def shorten(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with fewer steps in every stage, in proportion; never with more, nor with fewer than `LEAST_STEPS`."""
    steps = [min(stage.steps, max(LEAST_STEPS, int(stage.steps * factor))) for stage in recipe.stages]
    stages = [replace(stage, steps=number) for stage, number in zip(recipe.stages, steps, strict=True)]
    return replace(recipe, stages=stages)


class Clock:
    """Says what begins and remembers how long it took.

    Args:
        shown: whether to print anything.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside the `with` block under this name."""
        self.say(f"[bold]{name}[/bold]")
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began

    def say(self, text: str) -> None:
        """Print a line, with rich's markup."""
        from rich.console import Console

        if self.shown:
            Console().print(text)


def free_folder(wanted: Path) -> Path:
    """The folder itself if it is new or empty, else one with a number; nothing that exists is overwritten."""
    folder, number = wanted, 2
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder
