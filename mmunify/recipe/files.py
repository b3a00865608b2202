"""Recipe files: finding one, reading it with its `base:` parents, importing the modules that it names."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmunify.errors import RecipeError, RegistryError, UserError
from mmunify.faults import Fault, unknown
from mmunify.paths import shipped_recipe, shipped_recipes


def find_recipe(path: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that ships with mmunify ("tiny/unifiedmllm").

    Raises:
        UserError: there is none; the message lists those that ship.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise UserError(f"{path} is a folder; a recipe is a YAML file")
    shipped = shipped_recipe(str(path))
    if shipped is None:
        raise UserError(f"no file {str(path)!r}, and {unknown('shipped recipe', str(path), list(shipped_recipes()))}")
    return shipped


def read_chain(file: Path) -> list[dict[str, Any]]:
    """A recipe and its `base:` parents as plain trees, the eldest first, without their `base` keys.

    Raises:
        RecipeError: a base that is missing, or one that leads back to itself.
        UserError: a file that is not a YAML mapping.
    """
    chain: list[dict[str, Any]] = []
    visited: list[Path] = []
    current: Path | None = file
    while current is not None:
        if current.resolve() in visited:
            names = " -> ".join(str(path) for path in [*visited, current.resolve()])
            raise RecipeError([Fault("base", f"leads in a circle: {names}")])
        visited.append(current.resolve())
        data = read_yaml(current)
        base = data.pop("base", None)
        chain.insert(0, _with_absolute_imports(data, current))
        current = None if base is None else _find_base(base, current)
    return chain


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file as a plain tree; interpolations stay as they are.

    Raises:
        UserError: unreadable, empty, or not a mapping.
    """
    try:
        data = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as a YAML mapping: {reason}") from error
    if not isinstance(data, dict) or not data:
        raise UserError(f"{file} must hold a YAML mapping of a recipe's keys; got {type(data).__name__} {data!r}")
    return data  # type: ignore[return-value]


def import_modules(modules: Sequence[Any], folder: Path) -> list[Fault]:
    """Import what a recipe names under `imports:`, also from the recipe's own folder and the working directory.

    Args:
        modules: module names ("my_package.parts"), or paths of `.py` files.
        folder: of the recipe.
    """
    faults = []
    for index, module in enumerate(modules):
        try:
            with _also_from(folder, Path.cwd()):
                _import(str(module))
        except RegistryError as error:
            faults.append(Fault(f"imports.{index}", f"{module}: {error}"))
        except Exception as error:  # whatever the user's module raises is a fault of the recipe, not a crash
            faults.append(Fault(f"imports.{index}", f"{module!r} cannot be imported: {type(error).__name__}: {error}"))
    return faults


def _find_base(base: Any, child: Path) -> Path:
    if not isinstance(base, str):
        raise RecipeError([Fault("base", f"wants the path or the name of a recipe, got {base!r} ({child})")])
    for near in (child.parent / base, child.parent / f"{base}.yaml"):
        if near.is_file():
            return near
    shipped = shipped_recipe(base)
    if shipped is None:
        missing = unknown("shipped recipe", base, list(shipped_recipes()))
        raise RecipeError([Fault("base", f"of {child}: no file {child.parent / base}, and {missing}")])
    return shipped


def _with_absolute_imports(data: dict[str, Any], file: Path) -> dict[str, Any]:
    if isinstance(data.get("imports"), list):
        data["imports"] = [_absolute(module, file.parent) for module in data["imports"]]
    return data


def _absolute(module: Any, folder: Path) -> Any:
    is_file = isinstance(module, str) and module.endswith(".py")
    return str((folder / Path(module).expanduser()).resolve()) if is_file else module


@contextmanager
def _also_from(*folders: Path) -> Iterator[None]:
    """Modules of these folders can be imported too, after all others: they never shadow an installed one."""
    before = list(sys.path)
    sys.path.extend(str(folder.resolve()) for folder in folders)
    try:
        yield
    finally:
        sys.path[:] = before


def _import(module: str) -> None:
    if not module.endswith(".py"):
        importlib.import_module(module)
        return
    file = Path(module).resolve()
    name = f"mmunify_user_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file at {file}")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
