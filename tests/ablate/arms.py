"""A small recipe with arms, for the tests of ablations."""

from dataclasses import replace

from mmunify.recipe import Ablation, Evaluation
from tests.train.small import small_recipe

ARMS = {"plain": {}, "wide": {"model": {"tuners": {0: {"rank": 4}}}}}


def recipe_with(llama, steps=2, **ablate):
    """Two stages of a few steps; two arms that differ in rank, in all stages, unless told otherwise."""
    recipe = small_recipe(llama)
    stages = [replace(stage, steps=steps, optim=replace(stage.optim, warmup=0.0)) for stage in recipe.stages]
    evaluation = Evaluation(protocols=["question"], num_samples=2)
    return replace(recipe, stages=stages, evaluate=evaluation, ablate=Ablation(**{"arms": ARMS, **ablate}))
