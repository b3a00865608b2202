"""Packages that are called as functions: `mmunify.train(recipe)` beside `from mmunify.train.learns import ...`.

A function under a package's own name would be replaced by the package, or replace it, depending on what is imported
first. So the package itself answers the call.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of one of its functions, imported on the first call."""

    entry: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the package's function."""
        module, _, function = self.entry.partition(":")
        return getattr(importlib.import_module(module), function)(*args, **kwargs)


def make_callable(package: str, entry: str) -> None:
    """Let a package answer calls.

    Args:
        package: its `__name__`.
        entry: "module:function".
    """
    module: Any = sys.modules[package]
    module.__class__ = CallablePackage
    module.entry = entry
