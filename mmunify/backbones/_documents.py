"""Attention inside documents: rows that hold several of them are cut up, so that nothing is computed between two.

A mask over the whole row would cost as much as one long document, and would keep the fast causal kernels away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.layers.sdpa import in_fast_precision
from mmunify.types import Attention

KERNEL = "mmunify_documents"
"""Name in transformers' registry of attention functions: sdpa, and inside documents where it is told of them."""


@dataclass(slots=True)
class Documents:
    """Pieces of packed rows laid end to end: what one forward pass hands to its attention layers.

    Attributes:
        lengths: of the pieces: documents and stretches of padding, all rows one after the other.
        real: which of them are documents.
        masks: [L, L] of those with positions that attend in both directions; None = causal.
        calls: attention layers that used it.
    """

    lengths: list[int]
    real: list[bool]
    masks: Sequence[Tensor | None]
    calls: int = field(default=0, compare=False)


def find_documents(attention: Attention) -> Documents | None:
    """The pieces of rows of which some hold several documents; None where each row holds one, or one lies scattered."""
    document = attention.document.cpu()
    new = torch.ones_like(document, dtype=torch.bool)
    new[:, 1:] = document[:, 1:] != document[:, :-1]
    starts = new.flatten().nonzero().flatten()
    ids = document.flatten()[starts].tolist()
    rows = (starts // document.shape[1]).tolist()
    pieces = [pair for pair in zip(rows, ids, strict=True) if pair[1] >= 0]
    is_packed = len(pieces) > len({row for row, _ in pieces})
    if not is_packed or len(set(pieces)) < len(pieces):
        return None
    ends = [*starts.tolist()[1:], document.numel()]
    spans = list(zip(starts.tolist(), ends, strict=True))
    return Documents(
        lengths=[end - start for start, end in spans],
        real=[number >= 0 for number in ids],
        masks=list(_masks(attention, spans)),
    )


def _masks(attention: Attention, spans: list[tuple[int, int]]) -> Iterator[Bool[Tensor, "L L"] | None]:
    has_full = bool(attention.full.any())
    segment, full = attention.segment.flatten(), attention.full.flatten()
    for start, end in spans:
        inside = full[start:end]
        yield _mask(segment[start:end], inside) if has_full and bool(inside.any()) else None


def _mask(segment: Int[Tensor, "L"], full: Bool[Tensor, "L"]) -> Bool[Tensor, "L L"]:
    """Earlier positions, and the whole of a bidirectional segment."""
    causal = torch.ones(len(segment), len(segment), dtype=torch.bool, device=segment.device).tril()
    return causal | ((segment[:, None] == segment[None]) & full[:, None] & full[None])


def register_kernel() -> str:
    """Make `KERNEL` known to transformers; returns its name.

    Compiled layers step out of their graph to cut rows up: every batch has other pieces, and would be compiled anew.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(KERNEL, partial(attend, inside=torch.compiler.disable(attend_inside)))
    return KERNEL


def attend(
    module: Any,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B G K d"],
    value: Float[Tensor, "B G K v"],
    attention_mask: Tensor | None,
    documents: Documents | None = None,
    inside: Any = None,
    **options: Any,
) -> tuple[Float[Tensor, "B T H v"], None]:
    """transformers' sdpa attention; inside documents where some are given.

    Args:
        module: the attention layer.
        query, key, value: as transformers' attention functions take them.
        attention_mask: additive or boolean, or None.
        documents: pieces of the rows, see `Documents`.
        inside: `attend_inside`, or what stands for it in compiled code.
        options: dropout, scaling and others of sdpa.
    """
    if documents is None:
        return _sdpa(module, query, key, value, attention_mask, **options)
    return (inside or attend_inside)(module, query, key, value, documents, options)


def attend_inside(
    module: Any,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B G T d"],
    value: Float[Tensor, "B G T v"],
    documents: Documents,
    options: dict[str, Any],
) -> tuple[Float[Tensor, "B T H v"], None]:
    """Causal attention of every document by itself; zeros at padding. See `attend`."""
    documents.calls += 1
    parts = zip(
        *(_cut(states, documents.lengths) for states in (query, key, value)),
        documents.real,
        documents.masks,
        strict=True,
    )
    done = [
        _sdpa(module, q, k, v, mask, **options)[0] if is_real else _nothing(q, v) for q, k, v, is_real, mask in parts
    ]
    return torch.cat(done, dim=1).unflatten(1, (query.shape[0], query.shape[2])).squeeze(0), None


def _sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Float[Tensor, "B T H v"], None]:
    """transformers' sdpa attention, see `in_fast_precision`."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return sdpa_attention_forward(module, query, key, value, mask, **options)[0]

    return in_fast_precision(kernel, query, key, value, mask), None


def _cut(states: Float[Tensor, "B H T d"], lengths: list[int]) -> tuple[Tensor, ...]:
    """[1 H L d] of every piece. Splitting, not slicing: its backward pass joins the gradients in one go."""
    laid_out = states.transpose(1, 2).flatten(0, 1)
    return tuple(piece.transpose(0, 1).unsqueeze(0) for piece in laid_out.split(lengths))


def _nothing(query: Float[Tensor, "1 H L d"], value: Float[Tensor, "1 G L v"]) -> Float[Tensor, "1 L H v"]:
    return value.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
