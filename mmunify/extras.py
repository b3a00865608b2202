"""Optional packages: one message that says which extra brings the one that is missing."""

import importlib
import re
from importlib.metadata import PackageNotFoundError, requires
from types import ModuleType

from mmunify.errors import MissingExtraError

DEVELOPMENT = "dev"
"""The extra that no user is told to install: it repeats packages of others."""

DISTRIBUTIONS = {"megatron": "megatron-energon"}
"""Import name -> name to install, where the two differ by more than dashes."""


def require(package: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: import name ("av").
        purpose: who needs it, as the start of a sentence ("video input").

    Raises:
        MissingExtraError: "video input needs the package 'av': pip install 'mmunify[video]'".
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package.partition(".")[0]:
            raise
        raise missing(package, purpose) from error


def missing(package: str, purpose: str) -> MissingExtraError:
    """The error of an absent package, with the command that installs it."""
    package = package.partition(".")[0]
    package = DISTRIBUTIONS.get(package, package)
    extra = extra_of(package)
    wanted = f"'mmunify[{extra}]'" if extra else package.replace("_", "-")
    return MissingExtraError(f"{purpose} needs the package {package!r}: pip install {wanted}")


def extra_of(package: str) -> str | None:
    """The extra of mmunify that brings a package, read from the installed metadata; None = no extra does."""
    try:
        requirements = requires("mmunify") or []
    except PackageNotFoundError:
        return None
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if name and extra and extra[1] != DEVELOPMENT and _normal(name[0]) == _normal(package):
            return extra[1]
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
