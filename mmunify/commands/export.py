"""`export`: one part of a bundle in its library's own format."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, or of a run.")],
    part: Annotated[str, typer.Argument(help="encoders.image, backbone, detokenizers.image ...")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    dtype: Annotated[str, typer.Option("--dtype", help="Of the weights: float32, float16, bfloat16.")] = "float32",
) -> None:
    """Write one trained part as a folder that `path:` (and its own library) loads.

    Example: mmunify export runs/tower encoders.image tower --dtype float16
    """
    import torch

    from mmunify.checkpoint import load_bundle
    from mmunify.errors import UserError
    from mmunify.faults import unknown
    from mmunify.parts import Part

    model = load_bundle(bundle).model
    parts = {name: module for name, module in model.named_modules() if isinstance(module, Part)}
    if part not in parts:
        raise UserError(unknown("part", part, list(parts)))
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"no tensor type {dtype!r}; use float32, float16 or bfloat16")
    typer.echo(f"{part} -> {parts[part].save_folder(out, getattr(torch, dtype))}")
