"""What nodes say of each other: `kind`, `from`, `share`, and who reads whom."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmunify.faults import Fault, unknown
from mmunify.recipe.fields import ModelNodes
from mmunify.registry import HEADS
from mmunify.signature import parameters

KINDS = ("image", "video", "audio", "text")
"""Kinds of media that need no encoder to be known."""

REGIONS = ("mask", "box")
"""Kinds of outputs that are parts of a medium, and no media themselves."""

READABLE: Mapping[str, tuple[str, ...]] = {
    "encoders": ("encoders",),
    "adapters": ("encoders",),
    "heads": ("encoders",),
    "detokenizers": ("heads", "encoders", "detokenizers"),
}
"""Groups that the nodes of a group may read `from:`."""


def media_kinds(model: ModelNodes) -> tuple[str, ...]:
    """Kinds of media that go in or come out, text left out; "image" when there are none."""
    sides = (("encoders", model.encoders), ("heads", model.heads))
    named = [_kind(name, node) for side, nodes in sides for name, node in nodes.items() if _has_kind(side, name, node)]
    return tuple(dict.fromkeys(kind for kind in named if kind not in ("text", *REGIONS))) or ("image",)


def wiring_faults(model: ModelNodes, path: str = "model") -> list[Fault]:
    """Nodes that name unknown nodes or kinds, encoders that nobody reads, parts that lack a backbone."""
    return [*_named(model, path), *_unread(model, path), *_without_backbone(model, path)]


def sources(group: str, name: str, node: Any) -> list[str]:
    """The nodes that a node reads, as "encoders.image"; its own name's where it says nothing."""
    first = node[0] if isinstance(node, list) and node else node
    given = first.get("from") if isinstance(first, Mapping) else None
    if given is None:
        return _default_sources(group, name, first)
    listed = [str(each) for each in (given if isinstance(given, list) else [given])]
    bare = "" if group == "detokenizers" else "encoders."
    return [each if "." in each else bare + each for each in listed]


def _default_sources(group: str, name: str, node: Any) -> list[str]:
    if group == "adapters":
        return [f"encoders.{name}"]
    if group == "detokenizers":
        return [f"heads.{name}"]
    target = _target(node) if group == "heads" else None
    return [f"encoders.{target}"] if target else []


def _target(node: Any) -> str | None:
    """The encoder whose features a head reads, if its constructor has a `target` or `features`."""
    head = _head(node)
    if head is None:
        return None
    taken = {key: parameter.default for key, parameter in parameters(head).items() if key in ("target", "features")}
    return next((node.get(key, default) for key, default in taken.items() if isinstance(default, str)), None)


def _head(node: Any) -> Any:
    """The registered head of a node, or None when there is none that can be imported."""
    if not isinstance(node, Mapping) or node.get("name") not in HEADS.names():
        return None
    try:
        return HEADS.get(node["name"])
    except ImportError:
        return None


def _groups(model: ModelNodes) -> Iterator[tuple[str, str, Any]]:
    for group in READABLE:
        for name, node in getattr(model, group).items():
            yield group, name, node


def _named(model: ModelNodes, path: str) -> Iterator[Fault]:
    for group, name, node in _groups(model):
        at, given = f"{path}.{group}.{name}", node if isinstance(node, Mapping) else {}
        yield from _wrong_share(model, group, name, at) if "share" in given else _wrong_sources(model, group, name, at)
        if "kind" in given and group != "encoders":
            yield from _wrong_kind(model, str(given["kind"]), at)


def _wrong_share(model: ModelNodes, group: str, name: str, at: str) -> Iterator[Fault]:
    nodes = getattr(model, group)
    shared, others = nodes[name]["share"], [each for each in nodes if each != name]
    if shared not in others:
        yield Fault(f"{at}.share", unknown("other node", shared, others))


def _wrong_sources(model: ModelNodes, group: str, name: str, at: str) -> Iterator[Fault]:
    node, own = getattr(model, group)[name], f"{group}.{name}"
    known = [f"{side}.{each}" for side in READABLE[group] for each in getattr(model, side)]
    known = [each for each in known if each != own]
    for source in sources(group, name, node):
        if source not in known:
            yield Fault(f"{at}.{_source_key(group, node)}", unknown("node", source, known))


def _wrong_kind(model: ModelNodes, kind: str, at: str) -> Iterator[Fault]:
    kinds = list(dict.fromkeys([*KINDS, *REGIONS, *(_kind(name, node) for name, node in model.encoders.items())]))
    if kind not in kinds:
        yield Fault(f"{at}.kind", unknown("kind", kind, kinds))


def _source_key(group: str, node: Any) -> str:
    return "target" if group == "heads" and "from" not in node else "from"


def _unread(model: ModelNodes, path: str) -> Iterator[Fault]:
    """Encoders that no adapter, head, de-tokenizer or other encoder reads."""
    read = {source for group, name, node in _groups(model) for source in sources(group, name, node)}
    read |= {f"encoders.{name}" for name in model.heads}
    for name in model.encoders:
        if f"encoders.{name}" not in read:
            message = f"nobody reads it; add model.adapters.{name}, or a node that says from: {name}"
            yield Fault(f"{path}.encoders.{name}", message)


def _without_backbone(model: ModelNodes, path: str) -> Iterator[Fault]:
    needy = {
        "adapters": bool(model.adapters),
        "heads": any(getattr(_head(node), "needs_backbone", False) for node in model.heads.values()),
        "tuners": bool(model.tuners),
    }
    groups = [group for group, needs in needy.items() if needs]
    tuners_of_backbone = any("on" not in node for node in model.tuners if isinstance(node, Mapping))
    if groups == ["tuners"] and not tuners_of_backbone:
        return
    if groups and model.backbone is None:
        yield Fault(f"{path}.backbone", f"is missing, and {' and '.join(groups)} need one")


def _kind(name: str, node: Any) -> str:
    return str(node.get("kind", name)) if isinstance(node, Mapping) else name


def _has_kind(side: str, name: str, node: Any) -> bool:
    """Heads may have any name ("text", "balance"): only media kinds and explicit ones count."""
    return side == "encoders" or name in KINDS or (isinstance(node, Mapping) and "kind" in node)
