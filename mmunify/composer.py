"""Nodes or built parts -> UnifiedModel: wires widths, gives every node its own random stream, applies tuners.

The same composition can be written as a recipe or in Python; both come through here.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmunify.errors import RecipeError, UserError
from mmunify.faults import Fault, unknown
from mmunify.layers.tiling import Dynamic
from mmunify.model import UnifiedModel, Wiring, first_of_kind
from mmunify.parts import Adapter, Backbone, Detokenizer, Encoder, Head
from mmunify.paths import resolve_paths
from mmunify.registry import ADAPTERS, BACKBONES, DETOKENIZERS, ENCODERS, HEADS, TUNERS, Registry
from mmunify.signature import parameters
from mmunify.tokens import TokenRegistry
from mmunify.tokens.slots import strings as slot_strings

Nodes = Mapping[str, Any]
_JOINTS = ("kind", "from", "share", "bare")


@contextmanager
def part_seed(seed: int, node: str) -> Iterator[None]:
    """Random numbers inside depend on (seed, node) alone: swapping one part leaves the others' weights alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}/{node}".encode()))
        yield


def compose(
    *,
    encoders: Nodes | None = None,
    adapters: Nodes | None = None,
    backbone: Any = None,
    heads: Nodes | None = None,
    detokenizers: Nodes | None = None,
    tuners: Sequence[Any] = (),
    weights: Mapping[str, float] | None = None,
    tokens: TokenRegistry | None = None,
    seed: int = 0,
) -> UnifiedModel:
    """Join parts into a model.

    Args:
        encoders, adapters, heads, detokenizers: node name -> `{name: ..., **kwargs}` (with `kind`, `from`, `share`)
            or a built part. Widths (`in_dim`, `out_dim`, `target_dim`) are filled in. Lists of adapters concatenate.
        backbone: node or built part.
        tuners: nodes or built tuners, applied last; a node may say `on: encoders.image` (default: the backbone).
        weights: loss weights, see `UnifiedModel`.
        tokens: the token registry; its strings are added to the backbone's tokenizer.
        seed: of the random weights.

    Raises:
        RecipeError: a node names another one that doesn't exist, or its arguments don't fit.
    """
    joiner = _Joiner(seed, _asked_layers(adapters or {}, encoders or {}))
    tokens = tokens or TokenRegistry()
    made_encoders = joiner.join("encoders", ENCODERS, encoders or {})
    made_backbone = joiner.part("backbone", BACKBONES, backbone) if backbone is not None else None
    made_adapters = joiner.join_adapters(adapters or {}, made_encoders, made_backbone)
    made_heads = joiner.join_heads(heads or {}, made_encoders, made_backbone)
    if made_backbone is not None and made_backbone.tokenizer is not None:
        with part_seed(seed, "tokens"):
            made_backbone.add_tokens(_needed_tokens(tokens, made_adapters, made_heads))
            made_backbone.add_tokens({"layout": _layout_strings(made_encoders)})
    made_detokenizers = joiner.join_detokenizers(detokenizers or {}, made_encoders, made_heads)
    model = UnifiedModel(
        encoders=made_encoders,
        adapters=made_adapters,
        backbone=made_backbone,
        heads=made_heads,
        detokenizers=made_detokenizers,
        wiring=joiner.wiring,
        tuners=(),
        weights=weights,
        tokens=tokens,
    )
    model.tuners = [joiner.tune(model, i, node) for i, node in enumerate(tuners)]
    return model


def _needed_tokens(
    tokens: TokenRegistry, adapters: Mapping[str, Adapter], heads: Mapping[str, Head]
) -> dict[str, list[str]]:
    """Token groups that the model can use: rows that nothing could ever train are not added."""
    slotted = any(head.spec is not None and not head.spec.as_text for head in heads.values())
    unused = {name for name, used in (("media", adapters or slotted), ("outputs", slotted)) if not used}
    groups = {group: strings for group, strings in tokens.groups().items() if group not in unused}
    used = {string for head in heads.values() if head.spec is not None for string in slot_strings(head.spec)}
    groups["outputs"] = [string for string in groups.get("outputs", []) if string in used]
    if adapters and not slotted and all(adapter.bare for adapter in adapters.values()):
        groups["media"] = [tokens.slot]
    return groups


def _asked_layers(adapters: Nodes, encoders: Nodes) -> dict[str, list[int]]:
    """Encoder node -> hidden states that its readers ask for: `layers` of adapters, `levels` of region encoders."""
    asked: dict[str, list[int]] = {}
    for name, node in adapters.items():
        source = _given(node[0] if isinstance(node, Sequence) and node else node, "from") or name
        asked.setdefault(source.removeprefix("encoders."), []).extend(_numbers_under(node, "layers"))
    for node in encoders.values():
        if source := _given(node, "from"):
            asked.setdefault(source.removeprefix("encoders."), []).extend(_numbers_under(node, "levels"))
    return {name: sorted(set(layers)) for name, layers in asked.items() if layers}


def _numbers_under(node: Any, key: str) -> list[int]:
    """The whole numbers that a node, or a node inside it, lists under a key."""
    if isinstance(node, Mapping):
        own = [number for number in node.get(key) or () if isinstance(number, int)] if key in node else []
        return [*own, *(number for value in node.values() for number in _numbers_under(value, key))]
    if isinstance(node, list | tuple):
        return [number for value in node for number in _numbers_under(value, key)]
    return []


def _layout_strings(encoders: Mapping[str, Encoder]) -> list[str]:
    """Strings inside the items of an encoder that are no ordinary text: `<patch>`, a newline of its own."""
    tiled = [each for each in encoders.values() if isinstance(getattr(each, "preprocess", None), Dynamic)]
    runs = (run for encoder in tiled for run in encoder.layout(encoder.preprocess.size).runs)
    return list(dict.fromkeys(run.token for run in runs if run.token.startswith(("<", "|"))))


class _Joiner:
    """Builds nodes one after the other and remembers how they were joined."""

    def __init__(self, seed: int, layers: Mapping[str, Sequence[int]] = {}) -> None:
        self.seed, self.layers = seed, layers
        self.wiring: dict[str, Wiring] = {}

    def part(self, path: str, registry: Registry, node: Any, **dims: Any) -> Any:
        """A built part passes through; a node is built inside its own random stream."""
        if not isinstance(node, Mapping):
            return node
        arguments = resolve_paths({key: value for key, value in node.items() if key not in _JOINTS})
        with part_seed(self.seed, path):
            return registry.build(arguments, **dims)

    def join(self, side: str, registry: Registry, nodes: Nodes) -> dict[str, Any]:
        """Encoders. One that reads another's features comes behind it, and is told its width."""
        made: dict[str, Any] = {}
        for name, node in sorted(nodes.items(), key=lambda entry: _given(entry[1], "from") is not None):
            self._wire(side, name, node, default=f"{side}.{name}")
            shared, source = _given(node, "share"), _given(node, "from")
            if shared is not None and shared not in made:
                raise _unknown(f"model.{side}.{name}.share", shared, list(made))
            dims: dict[str, Any] = {"layers": list(self.layers[name])} if name in self.layers else {}
            if source is not None:
                dims["in_dim"] = made[self._source(side, name, node, made, name)].out_dim
            made[name] = made[shared] if shared is not None else self.part(f"{side}.{name}", registry, node, **dims)
            made[name].node = name
        return made

    def join_adapters(self, nodes: Nodes, encoders: Mapping[str, Encoder], backbone: Backbone | None) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, node in nodes.items():
            first = node[0] if isinstance(node, Sequence) else node
            source = self._source("adapters", name, first, encoders, default=name)
            self._refuse_second_reader(name, source)
            self._wire("adapters", name, first, default=f"encoders.{name}")
            dims = {"in_dim": encoders[source].out_dim, "out_dim": backbone.dim if backbone is not None else None}
            made[name] = self._adapter(f"adapters.{name}", node, dims)
            _check_layers(name, made[name], source, encoders[source])
            made[name].node, made[name].bare = name, bool(_given(first, "bare") or made[name].bare)
        return made

    def _refuse_second_reader(self, name: str, source: str) -> None:
        """An encoder's slots are filled by one adapter node; several adapters are a list under that node."""
        readers = [path for path, wiring in self.wiring.items() if wiring.source == f"encoders.{source}"]
        others = [path for path in readers if path.startswith("adapters.")]
        if others:
            message = f"encoders.{source} is read by {others[0]} already; put both into one list under that node"
            raise RecipeError([Fault(f"model.adapters.{name}", message)])

    def _adapter(self, path: str, node: Any, dims: Mapping[str, Any]) -> Adapter:
        if isinstance(node, Sequence):
            parts = [self.part(f"{path}.{i}", ADAPTERS, each, **dims) for i, each in enumerate(node)]
            return ADAPTERS.get("concatenate")(parts)
        return self.part(path, ADAPTERS, node, **dims)

    def join_heads(self, nodes: Nodes, encoders: Mapping[str, Encoder], backbone: Backbone | None) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, node in nodes.items():
            self._wire("heads", name, node, default="backbone")
            dims: dict[str, Any] = {"in_dim": backbone.dim if backbone is not None else None}
            encoder = self._head_encoder(name, node, encoders)
            if encoder is not None:
                dims["target_dim"] = encoders[encoder].out_dim
            made[name] = self.part(f"heads.{name}", HEADS, node, **dims)
            made[name].node = name
            if made[name].target in encoders:
                kind = self.wiring[f"encoders.{made[name].target}"].kind
                made[name].eye = first_of_kind(encoders, self.wiring, kind)
        return made

    def join_detokenizers(
        self, nodes: Nodes, encoders: Mapping[str, Encoder], heads: Mapping[str, Any]
    ) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, node in nodes.items():
            source = (node.get("from") if isinstance(node, Mapping) else None) or f"heads.{name}"
            self._wire("detokenizers", name, node, default=source)
            side, _, read = source.partition(".")
            known = [f"encoders.{n}" for n in encoders] + [f"heads.{n}" for n in heads]
            if source not in known:
                raise _unknown(f"model.detokenizers.{name}.from", source, known)
            made[name] = self._detokenizer(name, node, side, read, encoders, heads)
            made[name].node = name
        return made

    def _detokenizer(
        self,
        name: str,
        node: Any,
        side: str,
        read: str,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, Head],
    ) -> Detokenizer:
        """A de-tokenizer for the features of an encoder, or for those that a head makes.

        Raises:
            RecipeError: they don't fit; its `path:` was made for others.
        """
        head = heads[read] if side == "heads" else None
        shape = (
            _features_of(encoders[read]) if head is None else head.output_shape or self._target_shape(head, encoders)
        )
        viewer = next((each for key, each in encoders.items() if self.wiring[f"encoders.{key}"].kind == "image"), None)
        dims = {} if shape is None else {"in_dim": shape[1]}
        dims |= {} if viewer is None else {"features_dim": viewer.out_dim}
        path = f"model.detokenizers.{name}"
        try:
            made: Detokenizer = self.part(f"detokenizers.{name}", DETOKENIZERS, node, **dims)
        except UserError as error:
            if type(error) is not UserError:
                raise
            raise RecipeError([Fault(path, f"{error} (it reads {side}.{read})")]) from error
        _check_states(made, path, f"{side}.{read}", head, shape)
        return made

    def tune(self, model: UnifiedModel, index: int, node: Any) -> Any:
        """Build and apply one tuner."""
        on = "backbone"
        if isinstance(node, Mapping):
            on = node.get("on", on)
            node = {key: value for key, value in node.items() if key != "on"}
        tuner = self.part(f"tuners.{index}", TUNERS, node)
        try:
            target = model.get_submodule(on)
        except AttributeError as error:
            raise RecipeError([Fault(f"model.tuners.{index}.on", f"no module named {on!r} in the model")]) from error
        with part_seed(self.seed, f"tuners.{index}.weights"):
            tuner.apply(target)
        return tuner

    def _wire(self, side: str, name: str, node: Any, default: str) -> None:
        given = node if isinstance(node, Mapping) else {}
        source = given.get("from")
        if source is not None and "." not in source:
            source = f"encoders.{source}"
        self.wiring[f"{side}.{name}"] = Wiring(kind=given.get("kind", name), source=source or default)

    def _source(self, side: str, name: str, node: Any, encoders: Mapping[str, Encoder], default: str) -> str:
        source = (node.get("from") if isinstance(node, Mapping) else None) or default
        source = source.removeprefix("encoders.")
        if source not in encoders:
            raise _unknown(f"model.{side}.{name}.from", source, list(encoders))
        return source

    def _head_encoder(self, name: str, node: Any, encoders: Mapping[str, Encoder]) -> str | None:
        """Encoder node whose width a head needs: what it names, else its own name, else the only one."""
        given = node if isinstance(node, Mapping) else {}
        chosen = given.get("from") or given.get("target") or given.get("features")
        if chosen is not None:
            return self._source("heads", name, {"from": chosen}, encoders, default=name)
        if name in encoders:
            return name
        return next(iter(encoders)) if len(encoders) == 1 else _usual_encoder(given, encoders)

    def _target_shape(self, head: Head, encoders: Mapping[str, Encoder]) -> tuple[int, int] | None:
        """A head that says nothing of its features makes those of its target; `task_tokens` makes none."""
        own = head.node if head.node in encoders else None
        node = head.target or own or (next(iter(encoders)) if len(encoders) == 1 else None)
        return None if node is None else _features_of(encoders[node])


def _features_of(encoder: Encoder) -> tuple[int, int]:
    """(N, E) of an encoder's features."""
    return encoder.layout(None).num_slots, encoder.out_dim


def _check_states(made: Detokenizer, path: str, source: str, head: Head | None, shape: tuple[int, int] | None) -> None:
    """A de-tokenizer reads as many states as there are, and finds its targets.

    Raises:
        RecipeError: it doesn't.
    """
    makes = shape if head is None else head.output_shape
    if makes is not None and made.num_states not in (None, makes[0]):
        message = f"reads {made.num_states} states per item, and {source} makes {makes[0]}; change one of them"
        raise RecipeError([Fault(path, message)])
    blind = made.reads_target and made.preprocess is None
    if head is not None and makes is not None and blind and head.target is None:
        message = f"learns pictures as an encoder reads them, and {source} has no target: encoder node"
        raise RecipeError([Fault(path, message)])


def _check_layers(name: str, adapter: Adapter, source: str, encoder: Encoder) -> None:
    """An adapter's layers are those that its encoder gives.

    Raises:
        RecipeError: the encoder's node lists others.
    """
    needed = {int(need.removeprefix("layers:")) for need in adapter.needs if need.startswith("layers:")}
    given = getattr(encoder, "layers", None)
    if given is not None and not needed <= set(given):
        message = f"reads layers {sorted(needed)}, and encoders.{source} gives {sorted(given)}; list them there"
        raise RecipeError([Fault(f"model.adapters.{name}", message)])


def _usual_encoder(node: Mapping[str, Any], encoders: Mapping[str, Encoder]) -> str | None:
    """The encoder that a head reads unless it is told otherwise, if there is one of that name."""
    takes = parameters(HEADS.get(node["name"])) if "name" in node else {}
    usual = [takes[key].default for key in ("target", "features") if key in takes]
    return next((name for name in usual if name in encoders), None)


def _given(node: Any, key: str) -> Any:
    """What a node says of its wiring; a built part says nothing."""
    return node.get(key) if isinstance(node, Mapping) else None


def _unknown(path: str, name: str, known: Sequence[str]) -> RecipeError:
    return RecipeError([Fault(path, unknown("node", name, known))])
