"""`ablate`: compare the arms of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from mmunify.commands.train import Overrides, RecipeName


def ablate(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: runs/<recipe>.")] = None,
    reuse: Annotated[
        list[Path] | None, typer.Option("--reuse", help="A finished run whose equal stages are taken over.")
    ] = None,
) -> None:
    """Train and measure every arm of a recipe with every seed, and compare them in a table.

    Finished cells are skipped: after an interruption, call it again. Exit code 1 if a cell failed.

    Example: mmunify ablate ablations/low_rank --out runs/low_rank --reuse runs/unifiedmllm
    """
    from mmunify.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    loaded.validate()
    for remark in loaded.remarks():
        typer.echo(f"note: {remark}")

    from mmunify.ablate.run import ablate as compare

    if compare(loaded, out=out, reuse=reuse or []).failed:
        raise typer.Exit(1)
