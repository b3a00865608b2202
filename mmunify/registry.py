"""Names -> parts. A part's constructor signature is its schema; a folder of parts holds one part per file.

    @ADAPTERS.register("mlp")
    class MLPAdapter(Adapter): ...

Names come from this package (one file per part: looked up by file name, imported on demand), from entry
points (`mmunify.adapters`), from the modules that a recipe `imports:`, and from `MMUNIFY_PLUGINS`.
"""

import functools
import importlib
import importlib.util
import os
import pkgutil
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from mmunify.errors import MissingExtraError, RecipeError, RegistryError
from mmunify.extras import missing
from mmunify.faults import Fault, did_you_mean, unknown
from mmunify.signature import argument_faults, fits, options, parameters, type_name

Node = Mapping[str, Any]

__all__ = ["ALL", "Fault", "Node", "Registry", "did_you_mean", "nested"]


class Registry:
    """Parts of one kind, by name.

    Args:
        kind: noun for messages ("adapter").
        home: package whose files are the parts that ship with mmunify.
        group: entry-point group in which other packages publish theirs.
        contract: "module:Class" that an argument is annotated with to take a nested node of this kind.
        wiring: keys of a node that belong to the composer (`kind`, `from`, `share`, `on`) and not to the part.
    """

    def __init__(self, kind: str, home: str, group: str, contract: str = "", wiring: Sequence[str] = ()) -> None:
        self.kind, self.home, self.group = kind, home, group
        self.contract, self.wiring = contract, tuple(wiring)
        self._objects: dict[str, Any] = {}

    # -------------------------------------------------------------------------------------- names

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator. The same object twice is fine (reloads); another one under a taken name is refused.

        Raises:
            RegistryError: the name belongs to another object; the message names both owners.
        """

        def decorate(thing: Any) -> Any:
            owner = self._owner(name, thing)
            if owner:
                title = f"{self.kind} {name!r} of {_origin(thing)}"
                raise RegistryError(f"{title} is already registered by {owner}; choose another name")
            self._objects[name] = thing
            return thing

        return decorate

    def names(self) -> list[str]:
        """Every known name, sorted; no part is imported."""
        _import_plugins(os.environ.get("MMUNIFY_PLUGINS", ""))
        return sorted({*self._shipped, *self._objects, *self._published})

    def get(self, name: str) -> Any:
        """The object registered under `name`.

        Raises:
            RegistryError: unknown name, with the nearest one and the whole list; or a plug-in that doesn't load.
            MissingExtraError: the part needs a package that isn't installed; the message says how to get it.
        """
        _import_plugins(os.environ.get("MMUNIFY_PLUGINS", ""))
        published = self._published.get(name, [])
        if name not in self._objects and name in self._shipped:
            self._import_shipped(name)
        if name not in self._objects:
            self._load_published(name, published)
        if name not in self._objects:
            raise RegistryError(unknown(self.kind, name, self.names()))
        return self._objects[name]

    def file(self, name: str) -> Path | None:
        """The file of a part that ships with mmunify, without importing it; None for any other part."""
        return self._shipped.get(name)

    @contextmanager
    def temporary(self, name: str, thing: Any) -> Iterator[None]:
        """Register `thing` under `name` inside a `with` block (tests)."""
        before = dict(self._objects)
        self._objects[name] = thing
        try:
            yield
        finally:
            self._objects = before

    # -------------------------------------------------------------------------------------- nodes

    def check(self, node: Any, path: str, runtime: Iterable[str] = ()) -> list[Fault]:
        """Faults of a `{name: ..., **kwargs}` node against the constructor's signature, nested nodes included.

        Args:
            node: from the recipe.
            path: where the node stands in the recipe.
            runtime: arguments that the composer supplies.
        """
        return self._check(node, path, tuple(runtime), self.wiring)

    def build(self, node: Node, **runtime: Any) -> Any:
        """Construct a node; `runtime` supplies what the signature asks for and the node leaves out.

        Raises:
            RecipeError: the node has faults.
        """
        faults = self.check(node, self.kind, tuple(runtime))
        if faults:
            raise RecipeError(faults)
        return self._construct(node, runtime, self.wiring)

    def _check(self, node: Any, path: str, runtime: tuple[str, ...], wiring: Sequence[str] = ()) -> list[Fault]:
        if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
            return [Fault(path, f"needs a name, one of {self.names()}; got {node!r}")]
        try:
            thing = self.get(node["name"])
        except (RegistryError, MissingExtraError) as error:
            return [Fault(f"{path}.name", str(error))]
        except ImportError as error:
            return [Fault(f"{path}.name", f"{self.kind} {node['name']!r} cannot be imported: {error}")]
        takes, given = parameters(thing), _arguments(thing, node, wiring)
        title = getattr(thing, "__name__", node["name"])
        faults = argument_faults(thing, given, path, runtime)
        for key in given.keys() & takes.keys():
            faults += _value_faults(takes[key].annotation, given[key], f"{path}.{key}", title, runtime)
        return sorted(faults, key=lambda fault: fault.path)

    def _construct(self, node: Node, runtime: Mapping[str, Any], wiring: Sequence[str] = ()) -> Any:
        thing = self.get(node["name"])
        takes, given = parameters(thing), _arguments(thing, node, wiring)
        wanted = {k: v for k, v in runtime.items() if k in takes and k not in given}
        built = {k: _build(takes[k].annotation, v, runtime) if k in takes else v for k, v in given.items()}
        return thing(**wanted, **built)

    # -------------------------------------------------------------------------------------- sources

    @functools.cached_property
    def _shipped(self) -> dict[str, Path]:
        spec = importlib.util.find_spec(self.home)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
        modules = pkgutil.iter_modules([str(folder) for folder in folders])
        return {m.name: folders[0] / f"{m.name}.py" for m in modules if not m.name.startswith("_")}

    @functools.cached_property
    def _published(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point.name in self._shipped:
                owner = f"{self.home}.{point.name}"
                text = f"{self.kind} {point.name!r} of plug-in {point.value} is ignored: {owner} owns the name"
                warnings.warn(text, stacklevel=3)
            else:
                found.setdefault(point.name, []).append(point)
        return found

    def _import_shipped(self, name: str) -> None:
        try:
            importlib.import_module(f"{self.home}.{name}")
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "mmunify"):
                raise
            raise missing(package, f"{self.kind} {name!r}") from error
        if name not in self._objects:
            raise RegistryError(f"{self._shipped[name]} registers no {self.kind} named {name!r}")

    def _load_published(self, name: str, points: Sequence[EntryPoint]) -> None:
        for point in points:
            try:
                thing = point.load()
            except RegistryError:
                raise
            except Exception as error:
                text = f"{self.kind} {name!r} of plug-in {point.value} cannot be loaded: {error!r}"
                raise RegistryError(text) from error
            self.register(name)(thing)

    def _owner(self, name: str, thing: Any) -> str | None:
        """Who else owns the name; None when it is free for `thing`."""
        if name in self._objects:
            owner = _origin(self._objects[name])
            return None if owner == _origin(thing) else owner
        if name in self._shipped:
            owner = f"{self.home}.{name}"
            return None if owner == thing.__module__ else owner
        packages = {point.module.partition(".")[0]: point.value for point in self._published.get(name, [])}
        return None if not packages or thing.__module__.partition(".")[0] in packages else next(iter(packages.values()))


def nested(annotation: Any) -> tuple[Registry, bool] | None:
    """The registry whose nodes an annotation takes, and whether it takes a list or a mapping of them."""
    for option in options(annotation):
        if (one := _by_contract(option)) is not None:
            return one, False
        for item in typing.get_args(option):
            if (many := _by_contract(item)) is not None:
                return many, True
    return None


def _by_contract(annotation: Any) -> Registry | None:
    name = _contract_name(annotation)
    return next((registry for registry in ALL if registry.contract and registry.contract == name), None)


def _contract_name(cls: Any) -> str:
    return f"{getattr(cls, '__module__', '')}:{getattr(cls, '__qualname__', '')}"


def _arguments(thing: Any, node: Node, wiring: Sequence[str]) -> dict[str, Any]:
    """The node without its name and without the composer's keys, unless the part has an argument called so."""
    takes = parameters(thing)
    return {k: v for k, v in node.items() if k != "name" and (k in takes or k not in wiring)}


def _elements(value: Any, path: str, many: bool) -> list[tuple[str, Any]]:
    if not many:
        return [(path, value)]
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [(f"{path}.{key}", item) for key, item in pairs]


def _value_faults(annotation: Any, value: Any, path: str, title: str, runtime: tuple[str, ...]) -> list[Fault]:
    found = nested(annotation)
    if found is None:
        return [] if fits(value, annotation) else [Fault(path, f"{title} wants {type_name(annotation)}, got {value!r}")]
    registry, many = found
    plain = [option for option in options(annotation) if nested(option) is None]
    if any(fits(value, option) for option in plain):
        return []
    if many and not isinstance(value, list | tuple | Mapping):
        return [Fault(path, f"{title} wants {registry.kind} nodes, got {value!r}")]
    nodes = [(at, node) for at, node in _elements(value, path, many) if not _is_built(node, registry)]
    return [fault for at, node in nodes for fault in registry._check(node, at, runtime)]


def _is_built(value: Any, registry: Registry) -> bool:
    return any(_contract_name(cls) == registry.contract for cls in type(value).__mro__)


def _build(annotation: Any, value: Any, runtime: Mapping[str, Any]) -> Any:
    found = nested(annotation)
    if found is None:
        return value
    registry, many = found
    if many and isinstance(value, list | tuple):
        return [_build_one(registry, item, runtime) for item in value]
    if many and isinstance(value, Mapping):
        return {key: _build_one(registry, item, runtime) for key, item in value.items()}
    return _build_one(registry, value, runtime)


def _build_one(registry: Registry, value: Any, runtime: Mapping[str, Any]) -> Any:
    return registry._construct(value, runtime) if isinstance(value, Mapping) else value


@functools.cache
def _import_plugins(modules: str) -> None:
    """Import the modules of MMUNIFY_PLUGINS once; one that is broken doesn't stop the others."""
    for module in filter(None, (name.strip() for name in modules.split(","))):
        try:
            importlib.import_module(module)
        except Exception as error:
            warnings.warn(f"MMUNIFY_PLUGINS: {module!r} cannot be imported: {error!r}", stacklevel=4)


def _origin(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


_WIRING = ("kind", "from", "share")

ENCODERS = Registry("encoder", "mmunify.encoders", "mmunify.encoders", "mmunify.parts:Encoder", _WIRING)
ADAPTERS = Registry("adapter", "mmunify.adapters", "mmunify.adapters", "mmunify.parts:Adapter", (*_WIRING, "bare"))
BACKBONES = Registry("backbone", "mmunify.backbones", "mmunify.backbones", "mmunify.parts:Backbone")
TUNERS = Registry("tuner", "mmunify.experts.low_rank", "mmunify.tuners", "mmunify.parts:Tuner", ("on",))
HEADS = Registry("head", "mmunify.heads", "mmunify.heads", "mmunify.parts:Head", _WIRING)
DETOKENIZERS = Registry(
    "detokenizer", "mmunify.detokenizers", "mmunify.detokenizers", "mmunify.parts:Detokenizer", _WIRING
)
EXPERTS = Registry("expert", "mmunify.experts.tasks", "mmunify.experts", "mmunify.parts:Expert")
DATASETS = Registry("dataset", "mmunify.data.datasets", "mmunify.datasets")
METRICS = Registry("metric", "mmunify.evaluate.metrics", "mmunify.metrics")
ALL = (ENCODERS, ADAPTERS, BACKBONES, TUNERS, HEADS, DETOKENIZERS, EXPERTS, DATASETS, METRICS)
