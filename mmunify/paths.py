"""Where things lie: files inside the package (`assets:`), the user's folders, the recipes that ship with mmunify."""

from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
ASSETS = "assets:"
"""Prefix of a path inside the package: `assets:tiny/tower` is `mmunify/assets/tiny/tower`."""

LOCAL = ("./", "../", "~/", "/", ASSETS)
"""A path that starts so is a file or a folder of this machine; any other may be a hub id."""


def is_local(path: str) -> bool:
    """Whether a path names something on this machine for certain, and not a hub id."""
    return path.startswith(LOCAL) or path in (".", "..", "~")


def resolve_path(path: str) -> str:
    """`assets:tiny/tower`, `~/x`, `./x` -> an absolute path; hub ids and other names stay as they are."""
    if path.startswith(ASSETS):
        return str(PACKAGE / "assets" / path.removeprefix(ASSETS))
    return str(Path(path).expanduser().absolute()) if is_local(path) else path


def is_path(key: str, value: Any) -> bool:
    """Whether the argument `key: value` of a part is a path of this machine."""
    if not isinstance(value, str):
        return False
    return value.startswith(ASSETS) or (is_local(value) and (key == "path" or key.endswith("_path")))


def resolve_paths(value: Any, key: str = "") -> Any:
    """A node (or any nest of mappings and lists) with every path of this machine made absolute."""
    if isinstance(value, dict):
        return {name: resolve_paths(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve_paths(item, key) for item in value]
    return resolve_path(value) if is_path(key, value) else value


def recipes_folder() -> Path:
    """The recipes that ship with mmunify: inside the wheel, or beside the package in a checkout."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name ("tiny/unifiedmllm") -> file of every shipped recipe, sorted by name."""
    root = recipes_folder()
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted(root.rglob("*.yaml"))}


def shipped_recipe(name: str) -> Path | None:
    """The file of a shipped recipe by "tiny/unifiedmllm", with or without ".yaml" and a leading "recipes/"."""
    return shipped_recipes().get(name.removeprefix("./").removeprefix("recipes/").removesuffix(".yaml"))
