"""The command line. Commands live in `mmunify.commands`; each imports what it needs when it runs."""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from mmunify import __version__
from mmunify.commands import ablate, cache, catalogue, check, convert, export, gather, train, use
from mmunify.errors import MissingExtraError, MMUnifyError, UserError

app = typer.Typer(
    name="mmunify",
    help="Compose, train and use unified multimodal LLMs from registered parts. Start with: mmunify demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("demo")(use.demo)
app.command("train")(train.train)
app.command("check")(check.check)
app.command("cache")(cache.cache)
app.command("list")(catalogue.list_names)
app.command("show")(catalogue.show)
app.command("cp")(catalogue.copy)
app.command("run")(use.run)
app.command("eval")(use.evaluate)
app.command("ablate")(ablate.ablate)
app.command("export")(export.export)
app.command("convert")(convert.convert)
app.command("gather")(gather.gather)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"mmunify {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool | None, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = None,
) -> None:
    """Compose, train and use unified multimodal LLMs from registered parts. Start with: mmunify demo"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error is one readable paragraph; `--debug`, at any place, shows its traceback.

    Exit codes: 2 for what the user can mend (a recipe, a path, a missing package), 1 for everything else.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    kept = [argument for argument in given if argument != "--debug"]
    try:
        app(kept, prog_name="mmunify")
    except Exception as error:
        if len(kept) < len(given):
            traceback.print_exception(error)
        else:
            _print_error(error)
        sys.exit(2 if is_mendable(error) else 1)


def is_mendable(error: Exception) -> bool:
    """Whether the user can mend it: a wrong input, a missing file, a missing package."""
    files = FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError
    return isinstance(error, UserError | MissingExtraError | files)


def _print_error(error: Exception) -> None:
    from rich.console import Console
    from rich.text import Text

    known = isinstance(error, MMUnifyError | OSError)
    words = str(error) if known else f"unexpected {type(error).__name__}: {error} (--debug shows the traceback)"
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), words))


if __name__ == "__main__":
    main()
