"""Merging recipes: a child over its base, `key=value` over the file, a stage's model over the recipe's.

Mappings merge key by key, lists are replaced. A mapping over a list changes elements, by index or by their name
(`stages: {adapt: {steps: 10}}`). `null` over a mapping or a list deletes it. A node that changes its `name` keeps only
those arguments of the old part that the new one takes.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmunify.errors import MissingExtraError, UserError
from mmunify.faults import Fault, unknown
from mmunify.registry import (
    ADAPTERS,
    BACKBONES,
    DATASETS,
    DETOKENIZERS,
    ENCODERS,
    EXPERTS,
    HEADS,
    TUNERS,
    Registry,
    nested,
)
from mmunify.signature import parameters, takes_anything

Path = tuple[str | int, ...]

GROUPS = {"encoders": ENCODERS, "adapters": ADAPTERS, "heads": HEADS, "detokenizers": DETOKENIZERS}
"""Groups of model nodes by name."""

DATA_KEYS = ("weight", "batch_size")
"""Keys of a data node that belong to the mixture and not to the data set."""


class Merger:
    """Merges trees; remembers what found no place and which arguments a renamed node inherited.

    Attributes:
        faults: overrides of list elements that don't exist.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._inherited: dict[Path, set[str]] = {}

    def merge(self, old: Any, new: Any, at: Path = ()) -> Any:
        """`new` over `old`; neither is changed."""
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            return self._over_mapping(old, new, at)
        if isinstance(old, list) and isinstance(new, Mapping):
            return self._over_list(old, new, at)
        if at == ("imports",) and isinstance(old, list) and isinstance(new, list):
            return [*old, *(module for module in new if module not in old)]
        self._inherited = {path: keys for path, keys in self._inherited.items() if path[: len(at)] != at}
        return deepcopy(new)

    def drop_inherited(self, data: dict[str, Any]) -> list[str]:
        """Remove, in place, inherited arguments that a renamed node's new part doesn't take.

        Returns:
            One note per argument that was dropped.
        """
        return [note for at, keys in self._inherited.items() for note in _drop(data, at, keys)]

    def _over_mapping(self, old: Mapping[str, Any], new: Mapping[str, Any], at: Path) -> dict[str, Any]:
        if "name" in old and "name" in new and old["name"] != new["name"]:
            self._inherited[at] = {key for key in old if key not in new}
        else:
            self._inherited[at] = self._inherited.get(at, set()) - set(new)
        merged = {key: deepcopy(value) for key, value in old.items() if key not in new}
        for key, value in new.items():
            if value is None and isinstance(old.get(key), Mapping | list):
                continue
            merged[key] = self.merge(old.get(key), value, (*at, key))
        return {key: merged[key] for key in [*old, *(k for k in new if k not in old)] if key in merged}

    def _over_list(self, old: list[Any], new: Mapping[Any, Any], at: Path) -> list[Any]:
        merged = deepcopy(old)
        for key, value in new.items():
            index = _index(old, str(key))
            if index is None:
                known = list(dict.fromkeys([*_element_names(old), *(str(i) for i in range(len(old)))]))
                self.faults.append(Fault(dotted((*at, key)), unknown("element", str(key), known)))
            else:
                merged[index] = self.merge(merged[index], value, (*at, index))
        return merged


def override_tree(text: str) -> dict[str, Any]:
    """`"stages.adapt.steps=10"` -> `{"stages": {"adapt": {"steps": 10}}}`; the value is YAML.

    Raises:
        UserError: no `=`, no key, no value, or a value that is not YAML.
    """
    key, equals, written = text.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys) or not written.strip():
        example = "stages.adapt.steps=10 (null deletes, '' is empty text)"
        raise UserError(f"override {text!r}: write key=value, as in {example}")
    try:
        value: Any = OmegaConf.to_container(OmegaConf.create(f"value: {written}"))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"override {text!r}: the value is not YAML ({reason}); put quotes around it") from error
    for name in reversed(keys):
        value = {name: value}
    return value


def without_deleted(data: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without nodes and list elements that were set to null; arguments of parts may be null."""
    kept = dict(data)
    for key, clean in (("experts", _without_nulls), ("model", _model_without_nulls), ("stages", _stages_without_nulls)):
        if key in kept:
            kept[key] = clean(kept[key])
    return kept


def registry_at(data: Any, at: Sequence[str | int]) -> Registry | None:
    """The registry of the node that stands at a path of the recipe, nested nodes included; None = no node."""
    found = _top_node(tuple(at))
    if found is None:
        return None
    registry, rest = found
    node = value_at(data, tuple(at)[: len(at) - len(rest)])
    while rest:
        inner = _argument_nodes(registry, node, str(rest[0]))
        if inner is None:
            return None
        registry, depth = inner
        node, rest = value_at(node, rest[:depth]), rest[depth:]
    return registry


def value_at(data: Any, at: Sequence[str | int]) -> Any:
    """The value at a path; None where the path leads nowhere."""
    for key in at:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def dotted(at: Sequence[str | int]) -> str:
    """`("stages", 1, "steps")` -> `"stages.1.steps"`."""
    return ".".join(str(key) for key in at)


def _top_node(at: Path) -> tuple[Registry, Path] | None:
    """Registry of the node that a path enters, and the rest of the path inside that node."""
    match at:
        case ("stages", int(), "model", *rest):
            return _top_node(("model", *rest))
        case ("stages", int(), "data", int(), *rest):
            return DATASETS, tuple(rest)
        case ("model", "adapters", str(), int(), *rest):
            return ADAPTERS, tuple(rest)
        case ("model", str(group), str(), *rest) if group in GROUPS:
            return GROUPS[group], tuple(rest)
        case ("model", "backbone", *rest):
            return BACKBONES, tuple(rest)
        case ("model", "tuners", int(), *rest):
            return TUNERS, tuple(rest)
        case ("experts", str(), *rest):
            return EXPERTS, tuple(rest)
    return None


def _argument_nodes(registry: Registry, node: Any, key: str) -> tuple[Registry, int] | None:
    """Registry of the nodes in an argument, and how many path keys lead to one of them."""
    thing = _part(registry, node)
    parameter = parameters(thing).get(key) if thing is not None else None
    found = nested(parameter.annotation) if parameter is not None else None
    return (found[0], 2 if found[1] else 1) if found else None


def _part(registry: Registry, node: Any) -> Any:
    try:
        return registry.get(node["name"])
    except (UserError, MissingExtraError, ImportError, KeyError, TypeError):
        return None  # the check reports it


def _drop(data: dict[str, Any], at: Path, keys: set[str]) -> list[str]:
    registry, node = registry_at(data, at), value_at(data, at)
    thing = _part(registry, node) if registry is not None and keys else None
    if registry is None or thing is None or takes_anything(thing):
        return []
    kept = {"name", *parameters(thing), *registry.wiring, *(DATA_KEYS if registry is DATASETS else ())}
    dropped = [key for key in node if key in keys and key not in kept]
    title = f"{registry.kind} {node['name']!r}"
    return [f"{dotted(at)}: dropped {key}={node.pop(key)!r} of the base, which {title} doesn't take" for key in dropped]


def _without_nulls(branch: Any) -> Any:
    """A copy without the children that are null; what has no children stays as it is."""
    if isinstance(branch, Mapping):
        return {key: value for key, value in branch.items() if value is not None}
    return [value for value in branch if value is not None] if isinstance(branch, list) else branch


def _model_without_nulls(model: Any) -> Any:
    if not isinstance(model, Mapping):
        return model
    return {key: _without_nulls(value) if key in (*GROUPS, "tuners") else value for key, value in model.items()}


def _stages_without_nulls(stages: Any) -> Any:
    kept = _without_nulls(stages)
    for stage in kept if isinstance(kept, list) else ():
        if isinstance(stage, dict) and "data" in stage:
            stage["data"] = _without_nulls(stage["data"])
    return kept


def _index(elements: list[Any], key: str) -> int | None:
    if key.isdigit():
        return int(key) if int(key) < len(elements) else None
    return next((i for i, name in enumerate(_element_names(elements)) if name == key), None)


def _element_names(elements: list[Any]) -> list[str]:
    return [str(each.get("name", i)) if isinstance(each, Mapping) else str(i) for i, each in enumerate(elements)]
