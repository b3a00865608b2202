"""Conversations of the digit world, drawn from (seed, index) alone, and how they become samples."""

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from mmunify.data.digit_world.dialogues import draw_dialogue, draw_exchange
from mmunify.data.digit_world.edits import replace_digit
from mmunify.data.digit_world.facts import collect_facts
from mmunify.data.digit_world.handwriting import Split
from mmunify.data.digit_world.referents import sum_of_others
from mmunify.data.digit_world.replies import OUTPUTS, reply_parts
from mmunify.data.digit_world.scene import MAX_DIGITS, Scene, draw_scene, make_scene
from mmunify.data.digit_world.tasks import TASKS, Exchange
from mmunify.data.digit_world.words import center
from mmunify.errors import DataError
from mmunify.registry import did_you_mean
from mmunify.types import Media, Output, Sample, Text, Turn

SPLITS = ("train", "test")

APART = 3 / 64
"""Least distance between the centres of two digits along x, in parts of the picture: "left to right" must be clear."""

SUM_SCENE_RATE = 0.2
"""How often one of three digits is made the sum of the other two."""

Show = Callable[[Scene], Media | Text]
"""How a scene enters the conversation: as a picture or in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A conversation before its pictures are drawn. `task` is "multi" for several independent exchanges."""

    task: str
    exchanges: tuple[Exchange, ...]


def draw_clear_scene(
    rng: np.random.Generator, split: Split, num_digits: Sequence[int], size: int = 64, warp: float = 0.0
) -> Scene:
    """A scene whose digits have a clear order from left to right; now and then one is the sum of the other two."""
    while True:
        scene = make_scene(rng, split, num_digits[int(rng.integers(len(num_digits)))], size, warp)
        across = np.sort([center(digit)[0] for digit in scene.digits])
        if (np.diff(across) < APART * size).any():
            continue
        if len(scene.digits) == 3 and rng.random() < SUM_SCENE_RATE:
            return _with_sum(scene, rng, split)
        return scene


def _with_sum(scene: Scene, rng: np.random.Generator, split: Split) -> Scene:
    """One digit replaced so that one is the sum of the other two; the same scene if that makes two digits alike."""
    order = rng.permutation(3)
    first, second = (scene.digits[index].digit for index in order[:2])
    total = first + second if first + second <= 9 else abs(first - second)
    made = replace_digit(scene, int(order[2]), total, rng, split)
    distinct = len({(digit.digit, digit.color) for digit in made.digits}) == 3
    return made if distinct and sum_of_others(made) is not None else scene


class Conversations:
    """Drafts by index: each is a pure function of (seed, split, index).

    Args:
        split: "train" or "test" handwriting.
        tasks: names of tasks (of `TASKS`, or "dialogue"), or their weights; None = all of them, equally often.
        turns: independent exchanges about one scene per conversation; dialogues have their own number of turns.
        seed: of all draws.
        num_digits: numbers of digits that a scene may have, each equally likely, and that a user may ask for; dialogues
            ask for any number.
        size: side of the pictures in pixels.
        warp: strength (0..1) of random distortions of the handwriting.

    Raises:
        DataError: an unknown split or task, no task, a weight or a number out of range.
    """

    def __init__(
        self,
        split: str,
        tasks: Sequence[str] | Mapping[str, float] | None,
        turns: int,
        seed: int,
        num_digits: Sequence[int],
        size: int,
        warp: float,
    ) -> None:
        if turns < 1:
            raise DataError(f"turns={turns}: a conversation has at least one turn")
        check_scenes(split, num_digits)
        weights = _check_tasks(tasks)
        self.split: Split = "train" if split == "train" else "test"
        self.turns, self.seed, self.num_digits, self.size, self.warp = turns, seed, tuple(num_digits), size, warp
        self._names = list(weights)
        self._bounds = np.cumsum(list(weights.values())) / sum(weights.values())

    def __getitem__(self, index: int) -> Draft:
        """Draft number `index`, the same on every machine."""
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        scene = draw_clear_scene(rng, self.split, self.num_digits, self.size, self.warp)
        task = self._draw_task(rng)
        if task == "dialogue":
            return Draft(task=task, exchanges=tuple(draw_dialogue(scene, rng, self.split)))
        exchanges: list[Exchange] = [draw_exchange(scene, rng, self.split, task, (), self.num_digits)]
        while len(exchanges) < self.turns:
            other = self._draw_task(rng)
            if other != "dialogue":
                exchanges.append(draw_exchange(scene, rng, self.split, other, exchanges, self.num_digits))
        return Draft(task="multi" if self.turns > 1 else task, exchanges=tuple(exchanges))

    def by_task(self) -> dict[str, tuple["Conversations", float]]:
        """Task of a draft -> conversations of that task alone, and their share of these."""
        several = [name for name in self._names if name != "dialogue"] if self.turns > 1 else []
        groups = {"multi": several} if several else {}
        groups |= {name: [name] for name in self._names if name not in several}
        return {task: self._only(names) for task, names in groups.items()}

    def _only(self, names: Sequence[str]) -> tuple["Conversations", float]:
        shares = np.diff(self._bounds, prepend=0.0)[[self._names.index(name) for name in names]]
        part = copy(self)
        part._names, part._bounds = list(names), np.cumsum(shares) / shares.sum()
        return part, float(shares.sum())

    def _draw_task(self, rng: np.random.Generator) -> str:
        return self._names[int(np.searchsorted(self._bounds[:-1], rng.random(), side="right"))]


def check_scenes(split: str, num_digits: Sequence[int]) -> None:
    """Refuse settings that no scene can have.

    Raises:
        DataError: an unknown split, or numbers of digits out of range.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of the digit world; choose one of {SPLITS}")
    if not num_digits or not all(1 <= number <= MAX_DIGITS for number in num_digits):
        raise DataError(f"num_digits={list(num_digits)}: give one or more numbers from 1 to {MAX_DIGITS}")


def _check_tasks(tasks: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Task -> weight."""
    known = [*TASKS, "dialogue"]
    names = known if tasks is None else tasks
    weights = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    for name, weight in weights.items():
        if name not in known:
            raise DataError(f"no digit-world task {name!r}{did_you_mean(name, known)} Known: {', '.join(known)}")
        if not weight > 0:
            raise DataError(f"weight {weight} of digit-world task {name!r} must be positive; or leave it out")
    if not weights:
        raise DataError("tasks is empty: name at least one digit-world task, or leave it out for all of them")
    return weights


def show_picture(scene: Scene) -> Media:
    """The scene as a picture."""
    return Media(kind="image", source=draw_scene(scene))


def make_turns(
    exchanges: Sequence[Exchange], show: Show, outputs: Collection[str] = OUTPUTS, boxed: Collection[str] = ()
) -> tuple[Turn, ...]:
    """Turns of a conversation; a scene is shown before the first words that are about it.

    Args:
        exchanges: in order.
        show: how a scene enters.
        outputs, boxed: tasks whose answers are outputs, and those of them that say a box first, see `replies`.
    """
    turns, seen, number = [], None, -1
    for exchange in exchanges:
        shown: list[Text | Media | Output] = []
        if exchange.scene is not None and exchange.scene is not seen:
            shown = [show(exchange.scene)]
            seen, number = exchange.scene, number + 1
        blank = " " if shown and isinstance(shown[0], Text) else ""  # after a picture the chat template brings it
        turns.append(Turn(role="user", parts=(*shown, Text(text=blank + exchange.user)), task=exchange.task))
        answer = reply_parts(exchange, outputs, number, boxed)
        turns.append(Turn(role="assistant", parts=answer, task=exchange.task))
    return tuple(turns)


def make_sample(
    draft: Draft,
    name: str,
    source: str,
    show: Show = show_picture,
    outputs: Collection[str] = OUTPUTS,
    boxed: Collection[str] = (),
) -> Sample:
    """The sample of a draft; facts are collected if it has one exchange, without pictures where it has no outputs."""
    facts = collect_facts(draft.exchanges[0], pictures=bool(outputs)) if len(draft.exchanges) == 1 else {}
    turns = make_turns(draft.exchanges, show, outputs, boxed)
    return Sample(turns=turns, id=name, task=draft.task, source=source, facts=facts)


def prompt_of(sample: Sample) -> Sample:
    """The sample without its last assistant turn: what a model is asked in an evaluation."""
    if sample.turns and sample.turns[-1].role == "assistant":
        return replace(sample, turns=sample.turns[:-1])
    return sample
