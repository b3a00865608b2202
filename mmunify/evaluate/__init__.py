"""Evaluation: pure metrics, protocols over generated answers, and reports, always with n and a 95 % interval."""

from typing import TYPE_CHECKING, Any

from mmunify.callables import make_callable

if TYPE_CHECKING:
    from mmunify.evaluate.report import markdown_table, print_table, save_json
    from mmunify.evaluate.run import evaluate, run_protocols

__all__ = ["evaluate", "markdown_table", "print_table", "run_protocols", "save_json"]

make_callable(__name__, f"{__name__}.run:evaluate")
_HOMES = dict.fromkeys(__all__, "report") | {"evaluate": "run", "run_protocols": "run"}


def __getattr__(name: str) -> Any:
    """Public names load on first use: looking a protocol up must not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
