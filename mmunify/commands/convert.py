"""`convert`: a published model to a bundle, a bundle to a published layout."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(help="Folder or hub id of a LLaVA or BLIP-2, or a bundle or run of ours.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write.")],
) -> None:
    """Turn a published model into a bundle, or a bundle into a folder for transformers.

    Example: mmunify convert llava-hf/llava-1.5-7b-hf --to runs/llava
    """
    from mmunify.checkpoint import export_model, load_bundle, save_import

    folder = Path(source)
    is_ours = any((folder / file).is_file() for file in ("bundle.json", "run.json"))
    made = export_model(load_bundle(folder), to) if is_ours else save_import(source, to)
    typer.echo(f"{source} -> {made}")
