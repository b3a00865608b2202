"""Names and shapes of Qwen-VL's vision tower in public checkpoints, and in ours; both ways.

There, the three projections of an attention are one matrix: head by head in the blocks, one after the other in the
pooling layer. The pooling layer's fixed table of positions is stored there and computed here.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mmunify.layers.positions import sincos_2d

NAMES = (
    ("patches.weight", "conv1.weight"),
    ("positions", "positional_embedding"),
    ("norm_before.", "ln_pre."),
    (".attention_norm.", ".ln_1."),
    (".feed_forward_norm.", ".ln_2."),
    (".feed_forward.expand.", ".mlp.c_fc."),
    (".feed_forward.reduce.", ".mlp.c_proj."),
    (".attention.output.", ".attn.out_proj."),
    ("blocks.", "transformer.resblocks."),
    ("pool.queries_norm.", "attn_pool.ln_q."),
    ("pool.memory_norm.", "attn_pool.ln_kv."),
    ("pool.shrink.", "attn_pool.kv_proj."),
    ("pool.queries", "attn_pool.query"),
    ("pool.attn.", "attn_pool.attn."),
    ("pool.attention.", "attn_pool.attention."),
    ("norm_after.", "ln_post."),
)
"""(ours, public), replaced in this order; the last linear is called `proj` in both."""

TABLE = "attn_pool.pos_embed"
_JOINED = re.compile(r"(.*attn\.)in_proj(?:\.|_)(weight|bias)")
_APART = re.compile(r"(.*)\.attention\.query\.(weight|bias)")
_ROLES = ("query", "key", "value")


def from_public(tensors: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """A public checkpoint's tensors under our names."""
    return dict(_split(tensors, num_heads))


def to_public(tensors: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Our tensors under a public checkpoint's names, its fixed table of positions included."""
    joined = dict(_join(tensors, num_heads))
    num_queries, dim = tensors["pool.queries"].shape
    side = int(num_queries**0.5)
    return {**joined, TABLE: sincos_2d((side, side), dim).roll(dim // 2, dims=1)}


def _split(tensors: Mapping[str, Tensor], num_heads: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        found = _JOINED.fullmatch(name)
        if found is None:
            if name != TABLE:
                yield _renamed(name, 1, 0), tensor
            continue
        heads = 1 if name.startswith("attn_pool") else num_heads
        parts = tensor.unflatten(0, (heads, 3, -1)).unbind(1)
        place = _renamed(found[1], 1, 0).removesuffix("attn.") + "attention"
        yield from (
            (f"{place}.{role}.{found[2]}", part.flatten(0, 1)) for role, part in zip(_ROLES, parts, strict=True)
        )


def _join(tensors: Mapping[str, Tensor], num_heads: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        found = _APART.fullmatch(name)
        if found is not None:
            heads = 1 if found[1] == "pool" else num_heads
            parts = [tensors[f"{found[1]}.attention.{role}.{found[2]}"].unflatten(0, (heads, -1)) for role in _ROLES]
            place = _renamed(f"{found[1]}.attn.", 0, 1) + ("in_proj_" if found[1] == "pool" else "in_proj.")
            yield place + found[2], torch.stack(parts, dim=1).flatten(0, 2)
        elif not re.search(r"\.attention\.(key|value)\.", name):
            yield _renamed(name, 0, 1), tensor


def _renamed(name: str, old: int, new: int) -> str:
    for pair in NAMES:
        name = name.replace(pair[old], pair[new], 1)
    return name
