"""`list`, `show` and `cp`: what there is to compose."""

import ast
import inspect
import re
from pathlib import Path
from typing import Annotated

import typer

from mmunify.errors import UserError
from mmunify.faults import unknown
from mmunify.paths import shipped_recipe, shipped_recipes
from mmunify.registry import ALL, Registry
from mmunify.signature import parameters, type_name


def list_names(
    kind: Annotated[str | None, typer.Argument(help="adapters, heads, ... or recipes; default: all")] = None,
) -> None:
    """List registered names and shipped recipes.

    Example: mmunify list adapters
    """
    from rich.console import Console
    from rich.table import Table

    kinds = {f"{registry.kind}s": registry for registry in ALL}
    known = [*kinds, "recipes"]
    wanted = known if kind is None else [_plural(kind, known)]
    console = Console()
    for name in wanted:
        table = Table("name", "what it is", title=name, title_justify="left", title_style="bold", box=None)
        for entry, summary in recipe_summaries().items() if name == "recipes" else part_summaries(kinds[name]).items():
            table.add_row(entry, summary)
        console.print(table, "")


def show(name: Annotated[str, typer.Argument(help="Registered name of a part, a data set or a metric.")]) -> None:
    """Show what a part is and which arguments a recipe can give it.

    Example: mmunify show qformer
    """
    owners = [registry for registry in ALL if name in registry.names()]
    if not owners:
        known = sorted({each for registry in ALL for each in registry.names()})
        raise UserError(unknown("part", name, known))
    for registry in owners:
        typer.echo(describe(registry, name))


def copy(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, see: mmunify list recipes")],
    destination: Annotated[Path, typer.Argument(help="File, or folder, to copy it to.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Copy a shipped recipe, to change it.

    Example: mmunify cp tiny/unifiedmllm my.yaml
    """
    source = shipped_recipe(recipe)
    if source is None:
        raise UserError(unknown("shipped recipe", recipe, list(shipped_recipes())))
    is_folder = destination.is_dir() or destination.suffix not in (".yaml", ".yml")
    target = destination / source.name if is_folder else destination
    if target.exists() and not force:
        raise UserError(f"{target} exists; choose another destination or give --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_with_named_base(source), encoding="utf-8")
    typer.echo(f"copied {recipe} to {target}; check it with: mmunify check {target}")


def describe(registry: Registry, name: str) -> str:
    """Kind, origin, signature, docstring and contract of a part, as text."""
    thing = registry.get(name)
    lines = [f"{registry.kind} {name}  ({thing.__module__}.{thing.__qualname__})", ""]
    lines += [f"  {text}" for text in _arguments(thing)] or ["  takes no arguments"]
    for title, documented in (("", thing), (f"Contract {registry.contract.replace(':', '.')}: ", _contract(registry))):
        text = inspect.getdoc(documented) if documented is not None else None
        lines += ["", f"{title}{text}"] if text else []
    return "\n".join(lines) + "\n"


def part_summaries(registry: Registry) -> dict[str, str]:
    """Name -> the first line of its documentation; shipped parts are read, not imported."""
    return {name: _summary(registry, name) for name in registry.names()}


def recipe_summaries() -> dict[str, str]:
    """Shipped recipe -> the first line of its header."""
    texts = {name: file.read_text("utf-8") for name, file in shipped_recipes().items()}
    return {name: text.partition("\n")[0].lstrip("# ") if text.startswith("#") else "" for name, text in texts.items()}


def _plural(kind: str, known: list[str]) -> str:
    name = kind if kind.endswith("s") else f"{kind}s"
    if name not in known:
        raise UserError(unknown("kind", kind, known))
    return name


def _summary(registry: Registry, name: str) -> str:
    file = registry.file(name)
    if file is None or not file.is_file():
        return "from a plug-in"
    tree = ast.parse(file.read_text("utf-8"))
    named = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.decorator_list]
    documented = [ast.get_docstring(node) for node in [*named, tree]]
    return next((text.partition("\n")[0] for text in documented if text), "")


def _arguments(thing: object) -> list[str]:
    described = []
    for name, parameter in parameters(thing).items():
        kind = "" if parameter.annotation is parameter.empty else f": {type_name(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        described.append(f"{name}{kind}{default}")
    return described


def _contract(registry: Registry) -> object | None:
    if not registry.contract:
        return None
    from mmunify import parts

    return getattr(parts, registry.contract.partition(":")[2])


def _with_named_base(source: Path) -> str:
    """The recipe's text; a `base:` relative to its old place becomes the name of a shipped recipe."""
    names = {file.resolve(): name for name, file in shipped_recipes().items()}

    def renamed(match: re.Match[str]) -> str:
        return f"base: {names.get((source.parent / match[1]).resolve(), match[1])}"

    return re.sub(r"^base:\s*([^\s#]+)", renamed, source.read_text("utf-8"), flags=re.MULTILINE)
