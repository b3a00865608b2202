"""`cache`: look at a feature cache, and clear it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mmunify.data.cache.feature_cache import FeatureCache


def cache(
    folder: Annotated[Path, typer.Argument(help="The recipe's cache.path.")],
    clear: Annotated[bool, typer.Option("--clear", help="Delete what is stored.")] = False,
    name: Annotated[str, typer.Option(help="With --clear: of the encoder whose entry begins so alone.")] = "",
    limit: Annotated[
        float | None, typer.Option(help="Delete the least recently used until this many GiB are left.")
    ] = None,
) -> None:
    """Show what a feature cache holds, and delete all or part of it.

    Example: mmunify cache runs/features --clear
    """
    from mmunify.data.cache.feature_cache import FeatureCache
    from mmunify.errors import UserError

    if not folder.expanduser().is_dir():
        raise UserError(f"there is no folder {folder}; give the cache.path of the recipe that filled it")
    found = FeatureCache(folder, limit)
    if clear:
        typer.echo(f"{found.clear(name) / 2**20:,.1f} MiB are free again")
    gone = found.evict()
    if gone:
        typer.echo(f"{gone} shards were deleted")
    _show(found)


def _show(found: "FeatureCache") -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    table = Table("entry", "node", "part", "media", "MiB", "last used", title=str(found.folder), title_justify="left")
    for entry in found.entries():
        used = datetime.fromtimestamp(entry.used).isoformat(" ", "minutes") if entry.used else "never"
        about = [str(entry.about.get(key, "?")) for key in ("node", "part")]
        table.add_row(entry.name[:12], *about, f"{entry.num_items:,}", f"{entry.num_bytes / 2**20:,.1f}", used)
    Console().print(table)
