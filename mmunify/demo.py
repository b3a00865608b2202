"""`mmunify demo`: check a recipe, train it, measure it before and after, talk to it, and write down all of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmunify.checkpoint import Bundle
from mmunify.data.digit_world.conversations import draw_clear_scene
from mmunify.data.digit_world.layouts import Plan, draw_plan
from mmunify.data.digit_world.scene import Scene, digit_mask, draw_scene
from mmunify.data.digit_world.words import caption, name_of
from mmunify.evaluate.reader import find_digits, read_box
from mmunify.evaluate.report import markdown_table, print_table, save_json
from mmunify.evaluate.run import Results, evaluate
from mmunify.evaluate.scores import exact_match, mask_overlap
from mmunify.evaluate.sheet import Panel, draw_sheet, outline_boxes, overlay_mask
from mmunify.infer.assistant import Assistant
from mmunify.recipe import Recipe, load_recipe
from mmunify.types import Reply

RECIPE = "tiny/demo"
SCENE_SEED = 7
"""Of the test scene that the dialogue is about; fixed beforehand, not chosen by how well the model answers."""

NUM_SAMPLES = 40
LEAST_STEPS = 20
"""Steps that a stage keeps on a slow machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One turn of the dialogue: what was said, what came back, and what can be said about it."""

    title: str
    prompt: str
    reply: Reply
    verdict: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the demo did, for its report.

    Attributes:
        recipe: as it was trained.
        before, after: metrics.
        scene: that the dialogue is about.
        exchanges: the dialogue.
        seconds: of every step of the demo, by name.
    """

    recipe: Recipe
    before: Results
    after: Results
    scene: Scene
    exchanges: Sequence[Exchange]
    seconds: dict[str, float]


def run_demo(
    out: Path | None = None, seconds: float = 90, progress: bool = True, num_samples: int = NUM_SAMPLES
) -> Path:
    """Run the demo.

    Args:
        out: folder for everything that it writes; one that exists is left alone and a number is added.
        seconds: for training; on a machine where the recipe takes longer, its stages are shortened.
        progress: whether to print what happens.
        num_samples: samples per task of both evaluations.

    Returns:
        The folder.

    Raises:
        RecipeError: the recipe has faults.
    """
    folder, clock = _free_folder(out or Path("demo")), _Clock(progress)
    with clock("check"):
        recipe = load_recipe(RECIPE)
        recipe.validate()
        start = Bundle(recipe, recipe.build())
    with clock("measure before training"):
        before = evaluate(start, num_samples=num_samples, progress=progress, baselines=False)
    with clock("train"):
        bundle = _train(start, folder / "run", seconds, progress)
    with clock("measure after training"):
        after = evaluate(bundle, num_samples=num_samples, progress=progress)
    with clock("dialogue"):
        scene = make_demo_scene()
        exchanges = hold_dialogue(Assistant.load(bundle), scene, folder)
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
    shorter = shorten(recipe, seconds / sum(stage.steps for stage in recipe.stages) / time_step(start))
    return train(shorter, out=folder, progress=progress)


def time_step(bundle: Bundle) -> float:
    """Seconds that one training step of the recipe's longest stage takes here."""
    import torch

    from mmunify.train.loader import stage_samples

    stage = max(bundle.recipe.stages, key=lambda each: each.steps)
    samples, processor = stage_samples(stage, [0]), bundle.processor()
    batch = processor([samples[index] for index in range(stage.batch_size)])
    mixed = str(bundle.recipe.trainer.get("precision", "32")).startswith("bf16")
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            bundle.model(batch).total.backward()
        taken.append(time.perf_counter() - began)
        bundle.model.zero_grad(set_to_none=True)
    return min(taken) * 1.2  # the optimiser and the data take their share


def shorten(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with fewer steps in every stage, in proportion; never with more."""
    if factor >= 1:
        return recipe
    steps = [min(stage.steps, max(LEAST_STEPS, int(stage.steps * factor))) for stage in recipe.stages]
    stages = [replace(stage, steps=number) for stage, number in zip(recipe.stages, steps, strict=True)]
    return replace(recipe, stages=stages)


# ------------------------------------------------------------------------------------------- the dialogue


def make_demo_scene() -> Scene:
    """A scene of three digits in test handwriting."""
    return draw_clear_scene(np.random.default_rng(SCENE_SEED), "test", [3])


def hold_dialogue(assistant: Assistant, scene: Scene, folder: Path) -> list[Exchange]:
    """One conversation of five turns: a question, a box, a mask, a removal and a picture from words.

    Args:
        assistant: a fresh one.
        scene: that the conversation is about.
        folder: for the masks and pictures that experts make.
    """
    names = [name_of(digit) for digit in scene.digits]
    plan = draw_plan(np.random.default_rng(SCENE_SEED))
    prompts = (
        ("question", "How many digits are there?"),
        ("box", f"Where is the {names[1]}?"),
        ("mask", f"Segment the {names[0]}."),
        ("removal", f"Remove the {names[2]}."),
        ("picture", f"Generate an image of {plan.words}."),
    )
    exchanges = []
    for title, prompt in prompts:
        shown = draw_scene(scene) if not exchanges else None
        reply = assistant.reply(prompt, image=shown, out=folder / "artifacts")
        verdict = judge(title, reply, scene, plan)
        exchanges.append(
            Exchange(title=title, prompt=prompt, reply=reply, verdict=verdict, files=tuple(assistant.saved))
        )
    return exchanges


def judge(title: str, reply: Reply, scene: Scene, plan: Plan) -> str:
    """One honest line about a reply of the dialogue, from the ground truth or from the independent reader."""
    made = [artifact.data for artifact in reply.artifacts]
    if title == "question":
        truth = str(len(scene.digits))
        return f"{'right' if exact_match(reply.text, truth) else 'wrong'}: the answer is {truth}"
    if title == "box":
        return _judge_box(reply, scene)
    if not made:
        return "nothing was made"
    if title == "mask":
        inside, union = mask_overlap(made[-1], digit_mask(scene, 0)) if made[-1].ndim == 2 else (0.0, 1.0)
        return f"IoU with the true mask: {inside / union:.2f}"
    if title == "removal":
        left = read_box(made[-1], scene.digits[2].norm_box(scene.size)) if made[-1].ndim == 3 else None
        return f"the reader still sees {left.name} there" if left else "the reader sees no digit there any more"
    found = ", ".join(item.name for item in find_digits(made[-1])) if made[-1].ndim == 3 else ""
    return f"asked for: {', '.join(planned.name for planned in plan.objects)}; the reader finds: {found or 'nothing'}"


def _judge_box(reply: Reply, scene: Scene) -> str:
    from mmunify.evaluate.scores import box_iou

    box = next((region.box for region in reply.regions if region.box is not None), None)
    truth = scene.digits[1].norm_box(scene.size)
    return "no box" if box is None else f"IoU with the true box: {box_iou(box, truth):.2f}"


# ------------------------------------------------------------------------------------------- what it writes


def write_record(record: Record, folder: Path) -> None:
    """Write `sheet.png`, `report.md`, `before.json` and `after.json`."""
    save_json(record.before, folder / "before.json")
    save_json(record.after, folder / "after.json")
    draw_sheet(make_panels(record), f"mmunify demo: {record.recipe.name}, test handwriting", folder / "sheet.png")
    (folder / "report.md").write_text(write_report(record, folder), encoding="utf-8")


def make_panels(record: Record) -> list[Panel]:
    """The scene, then one panel per turn."""
    source = draw_scene(record.scene)
    panels = [Panel(title="test scene", picture=source, lines=(f"truth: {caption(record.scene)}",))]
    for number, exchange in enumerate(record.exchanges, 1):
        reply = exchange.reply
        lines = (f"> {exchange.prompt}", reply.raw or "(nothing)", f"[{exchange.verdict}]", *reply.problems)
        panels.append(Panel(title=f"{number}. {exchange.title}", picture=_show(reply, source), lines=lines))
    return panels


def _show(reply: Reply, source: np.ndarray) -> np.ndarray | None:
    """What a reply looks like: its last artifact, its boxes on the scene, or the scene itself."""
    if reply.artifacts:
        data = reply.artifacts[-1].data
        return overlay_mask(source, data) if data.ndim == 2 else data
    if reply.calls:
        return None
    return outline_boxes(source, [region.box for region in reply.regions if region.box is not None])


def write_report(record: Record, folder: Path) -> str:
    """The report as Markdown."""
    stages = ", ".join(f"{stage.name} {stage.steps} steps" for stage in record.recipe.stages)
    times = "\n".join(f"- {name}: {taken:.0f} s" for name, taken in record.seconds.items())
    files = sorted(path.relative_to(folder) for path in [*folder.glob("*"), *folder.glob("artifacts/*")])
    listed = "\n".join(f"- `{path}`" for path in [*files, Path("report.md")] if path.suffix or path.name == "run")
    return f"""# mmunify demo

Recipe `{record.recipe.name}`, trained from the tiny pretrained parts: {stages}.
Everything below is measured on handwriting that neither the parts nor this training saw.

![contact sheet](sheet.png)

## Metrics

Intervals are 95 % (Wilson for rates, bootstrap for means); n is the number of samples. "blanked image" is the same
model with its pictures blanked; "true calls" and "random calls" send those calls to the same experts.

{markdown_table(record.after, record.before)}
## Dialogue

One conversation about one test scene, in order ({caption(record.scene)}):

{"".join(map(_describe, record.exchanges))}
## Time

{times}

## Files

{listed}
"""


def _describe(exchange: Exchange) -> str:
    made = "".join(f"- made: `{path.name}`\n" for path in exchange.files)
    problems = "".join(f"- problem: {problem}\n" for problem in exchange.reply.problems)
    return f"**{exchange.prompt}**\n\n- reply: `{exchange.reply.raw}`\n{made}{problems}- {exchange.verdict}\n\n"


# ------------------------------------------------------------------------------------------- small things


class _Clock:
    """Says what begins and remembers how long it took."""

    def __init__(self, shown: bool) -> None:
        self.shown, self.seconds = shown, dict[str, float]()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.say(f"[bold]{name}[/bold]")
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began

    def say(self, text: str) -> None:
        from rich.console import Console

        if self.shown:
            Console().print(text)


def _free_folder(wanted: Path) -> Path:
    """The folder itself if it is new or empty, else with a number; nothing that exists is overwritten."""
    folder, number = wanted, 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    folder.mkdir(parents=True, exist_ok=True)
    return folder
