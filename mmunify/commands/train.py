"""`train`: run the stages of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value ..., such as stages.adapt.steps=10")]


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was interrupted.")] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="Run this stage alone.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default: runs/<recipe>.")] = None,
) -> None:
    """Train a recipe, stage after stage.

    Example: mmunify train tiny/unifiedmllm model.adapters.image.name=qformer
    """
    from mmunify.recipe import load_recipe
    from mmunify.train.folder import main_process
    from mmunify.train.stages import train as run_stages

    loaded = load_recipe(recipe, overrides or [])
    loaded.validate()
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")
    run_stages(loaded, out=out, resume=resume, stage=stage)
    if main_process():
        typer.echo(f"done; measure it with: mmunify eval {out or loaded.out or Path('runs') / loaded.name}")
