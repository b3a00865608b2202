"""From one stage's model to the next one's, where a stage changes the model: by name, with nothing lost in silence."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmunify.checkpoint import Bundle
from mmunify.errors import RecipeError
from mmunify.faults import Fault
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.train.learns import named_tensors

Model = TypeVar("Model", bound=nn.Module)


def hand_over(old: nn.Module, new: Model, fresh: Sequence[str] = (), path: str = "fresh") -> Model:
    """Copy the tensors of `old` into `new`, by clean name.

    Args:
        old: the model of the stage before.
        new: the model of this stage, freshly built.
        fresh: globs of tensors that may be new, missing or of another shape; they keep the values of `new`.
        path: where `fresh` stands in the recipe, for messages.

    Returns:
        `new`.

    Raises:
        RecipeError: tensors that are new, missing or reshaped and not under `fresh`.
    """
    before, after = dict(named_tensors(old)), dict(named_tensors(new))
    faults = [Fault(path, text) for name, text in _differences(before, after) if not _is_fresh(name, fresh)]
    if faults:
        raise RecipeError(faults)
    with torch.no_grad():
        for name, tensor in after.items():
            if name in before and before[name].shape == tensor.shape and not _is_fresh(name, fresh):
                tensor.copy_(before[name])
    return new


def recipe_of_stage(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with the stage's model, but with the run's loss weights: those of a stage end with it."""
    at_stage = recipe.at(stage)
    return replace(at_stage, model=replace(at_stage.model, weights=recipe.model.weights))


def model_of_stage(
    recipe: Recipe, stage: Stage, before: Bundle, build: Callable[[Recipe], UnifiedModel] = Recipe.build
) -> UnifiedModel:
    """The model of the stage before, or a new one with its tensors where the stage changes the model.

    Args:
        recipe: of the run.
        stage: that is about to begin.
        before: what it starts from.
        build: makes a new model.

    Raises:
        RecipeError: see `hand_over`.
    """
    model, own = before.model, recipe_of_stage(recipe, stage)
    if own.model != before.recipe.model:
        model = hand_over(model, build(own), stage.fresh, f"stages.{stage.name}.fresh")
    model.weights.clear()
    model.weights.update(recipe.at(stage).model.weights)
    return model


def _differences(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[tuple[str, str]]:
    found = [(name, f"{name} is not in the model of the stage before") for name in after if name not in before]
    lost = [name for name in before if name not in after]
    found += [(name, f"{name} of the stage before has no place in this stage's model") for name in lost]
    for name in before.keys() & after.keys():
        old, new = tuple(before[name].shape), tuple(after[name].shape)
        if old != new:
            found.append((name, f"{name} was {old} in the stage before and is {new} now"))
    return [(name, f"{text}; list it under fresh: to start it anew") for name, text in found]


def _is_fresh(name: str, fresh: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in fresh)
