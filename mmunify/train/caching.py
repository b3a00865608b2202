"""The feature cache in a stage: which encoders it serves, what their features depend on, and who writes."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmunify import __version__
from mmunify.data.cache.feature_cache import FeatureCache
from mmunify.data.cache.items import split_features
from mmunify.data.cache.shards import ShardFolder
from mmunify.data.processor import Processor
from mmunify.model import UnifiedModel
from mmunify.parts import Encoder
from mmunify.recipe import Recipe
from mmunify.types import Features, MediaBatch

log = logging.getLogger(__name__)

PLAIN = str | int | float | list | tuple
"""Types of attributes that are settings."""

PASSING = ("training", "node", "external")
"""Attributes that features don't depend on."""


def open_cache(recipe: Recipe) -> FeatureCache | None:
    """The cache that a recipe asks for.

    Raises:
        UserError: its folder can't be written.
    """
    asked = recipe.cache
    return None if asked.path is None else FeatureCache(asked.path, asked.limit)


@contextmanager
def caching(
    cache: FeatureCache | None, recipe: Recipe, model: UnifiedModel, processor: Processor, precision: str
) -> Iterator[None]:
    """Let the processor read from the cache and the model write to it, while a stage runs.

    Args:
        cache: None = nothing is cached.
        recipe: of the stage.
        model: what learns in the stage must have been applied, and weights must be whole.
        processor: of the stage's loader.
        precision: of the trainer.
    """
    if cache is None:
        yield
        return
    nodes = recipe.to_dict()["model"]["encoders"]
    shards = {node: _shards(cache, model, node, nodes.get(node), precision) for node in cached_nodes(model)}
    processor.encoder.caches = shards
    writer = _Writer(cache, shards)
    model.on_features = writer
    try:
        yield
    finally:
        writer.flush()
        model.on_features, processor.encoder.caches = None, {}


def cached_nodes(model: UnifiedModel) -> list[str]:
    """Encoder nodes whose features never change in a stage: frozen, of single media, their pixels of no other use."""
    links = [model.link(node) for node in model.detokenizers if _learns(model.detokenizers[node])]
    needed = {name for link in links for name in (link.source, link.eye)}
    return [node for node in model.encoders if node not in needed and _is_cached(model, node)]


def fingerprint(encoder: Encoder, kind: str, node: Any, precision: str) -> str:
    """Digest of all that an encoder's features depend on beside the medium.

    Args:
        encoder: its class, its tensors, its settings (layers that others asked for) and its preprocessing count.
        kind: of its media.
        node: of the recipe: layers, sizes, options.
        precision: of the trainer.
    """
    about = [_settings(encoder), kind, node, repr(encoder.preprocess_of(kind)), precision, __version__]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=repr).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(encoder: Encoder) -> list[Any]:
    """Class and plain attributes of an encoder and of those inside it."""
    parts = [module for module in encoder.modules() if isinstance(module, Encoder)]
    return [
        [
            type(part).__qualname__,
            {k: repr(v) for k, v in vars(part).items() if isinstance(v, PLAIN) and k not in PASSING},
        ]
        for part in parts
    ]


class _Writer:
    """Stores the features of a step; a disk that is full ends the writing, not the run."""

    def __init__(self, cache: FeatureCache, shards: Mapping[str, ShardFolder]) -> None:
        self.cache, self.shards = cache, shards
        self.broken = False

    def __call__(self, node: str, media: MediaBatch, features: Features) -> None:
        if self.broken or node not in self.shards:
            return
        shards = self.shards[node]
        wanted = [bool(key) and key not in shards for key in media.keys]
        if not any(wanted):
            return
        before = shards.num_written
        extents = [(width, height) for width, height in media.extent.tolist()]
        with self._guarded():
            for key, item, new in zip(media.keys, split_features(features, extents), wanted, strict=True):
                if new and item is not None:
                    shards.put(key, item)
            if shards.num_written > before:
                self.cache.evict()

    def flush(self) -> None:
        """Write what is waiting."""
        with self._guarded():
            for shards in self.shards.values():
                shards.flush()
            self.cache.evict()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = True
            log.warning("the feature cache %s takes nothing more in this stage: %s", self.cache.folder, error)


def _is_cached(model: UnifiedModel, node: str) -> bool:
    encoder: Encoder = model.encoders[node]  # type: ignore[assignment]
    tensors = list(encoder.parameters())
    alone = model.wiring[f"encoders.{node}"].source == f"encoders.{node}"
    return alone and encoder.cacheable and bool(tensors) and not _learns(encoder) and tensors[0].device.type != "meta"


def _shards(cache: FeatureCache, model: UnifiedModel, name: str, node: Any, precision: str) -> ShardFolder:
    encoder: Encoder = model.encoders[name]  # type: ignore[assignment]
    kind = model.wiring[f"encoders.{name}"].kind
    about = {"node": name, "part": type(encoder).__name__, "kind": kind, "precision": precision, "arguments": node}
    return cache.items_of(fingerprint(encoder, kind, node, precision), about)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
