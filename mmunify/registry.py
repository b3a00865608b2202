"""Names -> parts. A part's constructor signature is its schema; a folder of parts holds one part per file.

    @ADAPTERS.register("mlp")
    class MLPAdapter(Adapter): ...

Names come from this package (one file per part: looked up by file name, imported on demand), from entry
points (`mmunify.adapters`), from the modules that a recipe `imports:`, and from `MMUNIFY_PLUGINS`.
"""

import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from mmunify.errors import RecipeError, RegistryError

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe, and where."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """'; did you mean X?' or the empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Registry:
    """Parts of one kind, by name.

    Args:
        kind: noun for messages ("adapter").
        home: package whose files are the parts that ship with mmunify.
        contract: "module:Class" that an argument is annotated with to take a nested node of this kind.
    """

    def __init__(self, kind: str, home: str, contract: str = "") -> None:
        self.kind, self.home, self.contract = kind, home, contract
        self.group = f"mmunify.{home.rsplit('.', 1)[-1]}"
        self._objects: dict[str, Any] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator. The same object twice is fine (reloads); another one under a taken name is refused.

        Raises:
            RegistryError: the name belongs to another object; the message names both owners.
        """

        def decorate(thing: Any) -> Any:
            owner = self._objects.get(name)
            if owner is not None and _origin(owner) != _origin(thing):
                raise RegistryError(
                    f"{self.kind} {name!r} of {_origin(thing)} is already registered by {_origin(owner)}; choose another name"
                )
            self._objects[name] = thing
            return thing

        return decorate

    def names(self) -> list[str]:
        """Every known name, sorted; nothing is imported but plug-ins."""
        self._load_plugins()
        return sorted({*self._shipped(), *self._objects, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> Any:
        """The object registered under `name`.

        Raises:
            RegistryError: unknown name, with the nearest one and the whole list.
        """
        self._load_plugins()
        if name not in self._objects and name in self._shipped():
            importlib.import_module(f"{self.home}.{name}")
        if name not in self._objects:
            self._load_entry_point(name)
        if name not in self._objects:
            known = self.names()
            raise RegistryError(
                f"no {self.kind} named {name!r}{did_you_mean(name, known)} Known: {', '.join(known)}"
            )
        return self._objects[name]

    def check(self, node: Any, path: str, runtime: Sequence[str] = ()) -> list[Fault]:
        """Faults of a `{name: ..., **kwargs}` node, against the constructor's signature.

        Args:
            path: where the node stands in the recipe.
            runtime: arguments that the composer supplies.
        """
        if not isinstance(node, Mapping) or "name" not in node:
            return [Fault(path, f"needs a name, one of {self.names()}; got {node!r}")]
        try:
            thing = self.get(str(node["name"]))
        except RegistryError as error:
            return [Fault(f"{path}.name", str(error))]
        except ImportError as error:
            return [Fault(f"{path}.name", f"{self.kind} {node['name']!r} cannot be imported: {error}")]
        return _check_arguments(thing, {k: v for k, v in node.items() if k != "name"}, path, runtime)

    def build(self, node: Node, **runtime: Any) -> Any:
        """Construct a node; `runtime` supplies what the signature asks for and the node leaves out.

        Raises:
            RecipeError: the node has faults.
        """
        faults = self.check(node, self.kind, tuple(runtime))
        if faults:
            raise RecipeError(faults)
        thing = self.get(node["name"])
        takes = _parameters(thing)
        wanted = {k: v for k, v in runtime.items() if k in takes and k not in node}
        given = {k: _build_nested(takes[k], v) for k, v in node.items() if k != "name"}
        return thing(**wanted, **given)

    @contextmanager
    def temporary(self, name: str, thing: Any) -> Iterator[None]:
        """Register `thing` under `name` inside a `with` block (tests)."""
        before = dict(self._objects)
        self._objects[name] = thing
        try:
            yield
        finally:
            self._objects = before

    def _shipped(self) -> list[str]:
        spec = importlib.util.find_spec(self.home)
        folders = spec.submodule_search_locations if spec else None
        return [m.name for m in pkgutil.iter_modules(folders or []) if not m.name.startswith("_")]

    def _load_entry_point(self, name: str) -> None:
        for point in entry_points(group=self.group, name=name):
            try:
                self.register(name)(point.load())
            except RegistryError:
                raise
            except Exception as error:  # one broken plug-in must not break the others
                warnings.warn(f"{self.kind} {name!r} of {point.value} could not be loaded: {error!r}", stacklevel=3)

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for module in filter(None, os.environ.get("MMUNIFY_PLUGINS", "").split(",")):
            try:
                importlib.import_module(module.strip())
            except Exception as error:
                warnings.warn(f"MMUNIFY_PLUGINS: {module!r} could not be imported: {error!r}", stacklevel=3)


def _origin(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _parameters(thing: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(thing).parameters)


def _check_arguments(thing: Any, given: Node, path: str, runtime: Sequence[str]) -> list[Fault]:
    takes = _parameters(thing)
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        takes_more = True
        takes = {k: p for k, p in takes.items() if p.kind is not p.VAR_KEYWORD}
    else:
        takes_more = False
    title, faults = thing.__name__, []
    for key, value in given.items():
        if key not in takes:
            if not takes_more:
                hint = did_you_mean(key, list(takes))
                faults.append(Fault(f"{path}.{key}", f"{title} takes no {key}{hint} It takes {', '.join(takes)}"))
            continue
        faults += _check_value(takes[key], value, f"{path}.{key}", title)
    for key, parameter in takes.items():
        if parameter.default is parameter.empty and key not in given and key not in runtime:
            faults.append(Fault(f"{path}.{key}", f"required by {title} and not given"))
    return faults


def _check_value(parameter: inspect.Parameter, value: Any, path: str, title: str) -> list[Fault]:
    nested = _nested_registry(parameter.annotation)
    if nested is not None:
        return nested.check(value, path) if isinstance(value, Mapping) else []
    if not _fits(value, parameter.annotation):
        expected = getattr(parameter.annotation, "__name__", str(parameter.annotation))
        return [Fault(path, f"{title} wants {expected}, got {value!r}")]
    return []


def _build_nested(parameter: inspect.Parameter, value: Any) -> Any:
    nested = _nested_registry(parameter.annotation)
    return nested.build(value) if nested is not None and isinstance(value, Mapping) else value


def _nested_registry(annotation: Any) -> "Registry | None":
    """The registry whose contract the annotation names, also inside a union with None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        name = f"{getattr(option, '__module__', '')}:{getattr(option, '__qualname__', '')}"
        for registry in ALL:
            if registry.contract == name:
                return registry
    return None


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a YAML value fits a type hint; hints that YAML cannot express always fit."""
    if annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, str):
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in args)
    if origin is typing.Literal:
        return value in args
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool):
        return isinstance(value, annotation)
    if origin in (list, tuple, set, frozenset) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return isinstance(value, Sequence) and not isinstance(value, str)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    return True


ENCODERS = Registry("encoder", "mmunify.encoders", "mmunify.parts:Encoder")
ADAPTERS = Registry("adapter", "mmunify.adapters", "mmunify.parts:Adapter")
BACKBONES = Registry("backbone", "mmunify.backbones", "mmunify.parts:Backbone")
TUNERS = Registry("tuner", "mmunify.experts.low_rank", "mmunify.parts:Tuner")
HEADS = Registry("head", "mmunify.heads", "mmunify.parts:Head")
DETOKENIZERS = Registry("detokenizer", "mmunify.detokenizers", "mmunify.parts:Detokenizer")
EXPERTS = Registry("expert", "mmunify.experts.tasks", "mmunify.parts:Expert")
DATASETS = Registry("dataset", "mmunify.data.datasets")
METRICS = Registry("metric", "mmunify.evaluate.metrics")
ALL = (ENCODERS, ADAPTERS, BACKBONES, TUNERS, HEADS, DETOKENIZERS, EXPERTS, DATASETS, METRICS)
