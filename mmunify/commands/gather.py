"""`gather`: a bundle of what an unfinished stage has learned so far."""

from pathlib import Path
from typing import Annotated

import typer


def gather(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the bundle; default: in the run's.")] = None,
) -> None:
    """Make a bundle of the checkpoint that an interrupted run left, in one piece or in one per process.

    Example: mmunify gather runs/llava --out halfway
    """
    from mmunify.train.gathering import gather as gather_run

    typer.echo(f"{run} -> {gather_run(run, out)}")
