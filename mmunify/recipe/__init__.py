"""Recipes: what a model is made of, what it learns and when. `load_recipe` reads one, `Recipe` checks and builds it."""

from mmunify.recipe.fields import Ablation, Evaluation, ModelNodes, Optim, ParameterGroup, Stage, Tokens
from mmunify.recipe.recipe import Recipe, load_recipe

__all__ = [
    "Ablation",
    "Evaluation",
    "ModelNodes",
    "Optim",
    "ParameterGroup",
    "Recipe",
    "Stage",
    "Tokens",
    "load_recipe",
]
