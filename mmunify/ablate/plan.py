"""What an ablation has to do: one cell per arm and seed, cut into steps that several cells may share."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmunify.errors import UserError
from mmunify.recipe import Recipe

_TRAINING = ("imports", "chat", "max_length", "model", "tokens", "trainer")
"""What of a recipe, beside seeds and stages, decides what a stage learns."""

_USE = ("chat", "experts", "evaluate")
"""What decides, beside the weights, what a trained model answers and how it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage of a cell.

    Attributes:
        stage: its name.
        seed: that it is trained with.
        varies: whether the cell's own seed reaches it.
        key: the same for all cells that need exactly this stage behind exactly these stages.
    """

    stage: str
    seed: int
    varies: bool
    key: str

    @property
    def folder(self) -> str:
        """Name of the folder of its run."""
        return f"{self.stage}-{self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of an ablation's raw data.

    Attributes:
        arm: name of its row in the table.
        seed: of the stages from `vary` on.
        recipe: of the arm.
        steps: to take before the cell is measured.
    """

    arm: str
    seed: int
    recipe: Recipe
    steps: tuple[Step, ...]

    @property
    def file(self) -> str:
        """Name of the file that keeps its outcome."""
        return f"{self.arm}-seed{self.seed}.json"

    @property
    def fingerprint(self) -> str:
        """Changes with all that its outcome depends on."""
        tree = self.recipe.to_dict()
        return _digest([self.steps[-1].key, *(tree[key] for key in _USE)])

    def until(self, depth: int) -> Recipe:
        """The recipe up to step `depth`, with the seed of that step."""
        return replace(self.recipe, seed=self.steps[depth].seed, stages=self.recipe.stages[: depth + 1])


def plan(recipe: Recipe) -> list[Cell]:
    """The cells of an ablation: what it compares with first, then all arms of the first seed, of the second ...

    Raises:
        UserError: a recipe without arms, or an arm without stages.
    """
    ablate = recipe.ablate
    if not ablate.arms:
        raise UserError(f"recipe {recipe.name!r} has no ablate.arms; there is nothing to compare")
    arms = {name: recipe.arm(name) for name in ablate.arms}
    empty = [name for name, arm in arms.items() if not arm.stages]
    if empty:
        raise UserError(f"ablate.arms.{empty[0]} has no stages; there is nothing to train")
    cells = [
        Cell(arm=name, seed=seed, recipe=arm, steps=tuple(_steps(arm, seed, ablate.vary)))
        for seed in ablate.seeds
        for name, arm in arms.items()
    ]
    return [*_before(cells, ablate.before), *cells]


def _before(cells: list[Cell], stage: str) -> list[Cell]:
    """Cells that end at `stage`: one per different history; arms that share theirs share the row."""
    cut: dict[str, tuple[Cell, list[str]]] = {}
    for cell in cells:
        names = [step.stage for step in cell.steps]
        if stage in names:
            steps = cell.steps[: names.index(stage) + 1]
            known = cut.setdefault(steps[-1].key, (replace(cell, seed=steps[-1].seed, steps=steps), []))
            known[1].append(cell.arm)
    arms = len({cell.arm for cell in cells})
    title = f"after {stage}"
    shared = all(len(set(names)) == arms for _, names in cut.values())
    return [replace(cell, arm=title if shared else f"{cell.arm}, {title}") for cell, _ in cut.values()]


def _steps(recipe: Recipe, seed: int, vary: str) -> Iterator[Step]:
    tree = recipe.to_dict()
    history = [_digest([tree[key] for key in _TRAINING])]
    varies = not vary
    for stage in tree["stages"]:
        varies = varies or stage["name"] == vary
        own = seed if varies else recipe.seed
        history.append(_digest([own, stage]))
        yield Step(stage=stage["name"], seed=own, varies=varies, key=_digest(history)[:12])


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
