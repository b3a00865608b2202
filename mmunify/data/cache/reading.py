"""What the data side asks the feature cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmunify.data.cache.content import content_digest
from mmunify.data.cache.items import StoredItem
from mmunify.data.cache.shards import ShardFolder

Caches = Mapping[str, ShardFolder]
"""Encoder node -> its items."""


def find_stored(source: Any, nodes: Sequence[str], caches: Caches) -> tuple[str, dict[str, StoredItem] | None]:
    """Key of a medium, and what is stored of it if all of its nodes are.

    Args:
        source: the medium.
        nodes: encoder nodes that read it.
        caches: of the nodes that are cached.

    Returns:
        "" for a medium that no node caches, or whose content can't be told.
    """
    cached = [node for node in nodes if node in caches]
    key = content_digest(source) if cached else None
    if key is None or len(cached) < len(nodes):
        return key or "", None
    found = {node: caches[node].get(key) for node in nodes}
    return key, {node: item for node, item in found.items() if item is not None} if all(found.values()) else None
