"""What heads share that read the states of strings which the model writes."""

import re
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmunify.errors import PlacementError, UserError
from mmunify.parts import Head, Slot
from mmunify.types import Batch, Features, Hidden, Layout, Run, SlotSpec

TAG = re.compile(r"<[A-Za-z][A-Za-z0-9_]*>")

Reads = Literal["at", "before"]
"""The state at a token (GILL, SmartEdit), or the one that predicts it (LISA, GLaMM, MGIE)."""


@runtime_checkable
class TokenSlot(Slot, Protocol):
    """An open output slot, with what stands before it and the strings inside it."""

    def written(self, num: int, reads: Reads) -> Float[Tensor, "K n D"]:
        """States of the first `num` strings of the item."""
        ...

    def inputs(self, num: int) -> Float[Tensor, "K n D"]:
        """Embeddings of the same strings."""
        ...

    def prefix(self, layer: int) -> tuple[Float[Tensor, "K T D"], Bool[Tensor, "K T"]]:
        """States of one layer (-1 = last) of all positions up to the opening one, and which of them are real."""
        ...

    def medium(self, node: str) -> Features:
        """Features of the latest medium of every open row."""
        ...

    def source(self, node: str) -> tuple[Features | None, Bool[Tensor, "K"]]:
        """The same where a row may have none, and which rows have one."""
        ...


def signal_slot(tokens: Sequence[str], learned: Sequence[str]) -> SlotSpec:
    """The slot of strings that the model writes itself; those that are `learned` carry text loss."""
    return SlotSpec(layout=Layout(runs=tuple(Run(token=token) for token in tokens)), learned=frozenset(learned))


def closing(opens: str, head: str) -> str:
    """The string that closes what another one opens: `</img>` for `<img>`.

    Raises:
        UserError: a string that is no tag: its slot would never close.
    """
    if not TAG.fullmatch(opens):
        raise UserError(f"opens={opens!r} of a {head} head is no tag, so its slot would never close; write <name>")
    return opens.replace("<", "</", 1)


def require_hidden(hidden: Hidden | None, head: Head) -> Hidden:
    """The hidden states, or a TypeError that says that there is no backbone."""
    if hidden is None:
        raise TypeError(f"{type(head).__name__} needs a backbone; this model has none")
    return hidden


def token_slot(slot: Slot) -> TokenSlot:
    """The slot as heads of strings need it.

    Raises:
        TypeError: a slot that knows no strings.
    """
    if not isinstance(slot, TokenSlot):
        raise TypeError(f"a head that reads written tokens needs a TokenSlot, got {type(slot).__name__}")
    return slot


def read_slots(
    states: Float[Tensor, "B T D"], batch: Batch, head: Head, num: int, reads: Reads = "at"
) -> Float[Tensor, "K n D"]:
    """States at the `num` positions of each of the head's K items, or at the ones before them.

    Raises:
        PlacementError: the positions are no whole number of items.
    """
    outputs = head.items(batch)
    if outputs is None or outputs.slots is None:
        return states.new_zeros(0, num, states.shape[2])
    places = outputs.slots if reads == "at" else outputs.slots.roll(-1, dims=1)
    read = states[places]
    if len(read) != num * len(outputs.document):
        raise PlacementError(
            f"node {head.node!r} reads {num} positions of each of {len(outputs.document)} outputs, and its slots are "
            f"{len(read)}: the layout that data.encode used is not that of the head"
        )
    return read.unflatten(0, (-1, num))


def read_ranges(
    states: Float[Tensor, "B T D"], batch: Batch, head: Head, reads: Reads = "at"
) -> tuple[Float[Tensor, "K T D"], Bool[Tensor, "K T"]]:
    """States of the row of each of the head's K items, and the positions of its document up to the item's first string.

    Args:
        states: of a layer.
        batch: where the items stand.
        head: whose items.
        reads: the range ends "at" that string, or "before" it.
    """
    outputs = head.items(batch)
    if outputs is None or outputs.slots is None:
        return states[:0], batch.attention.valid[:0]
    rows, columns = outputs.slots.nonzero(as_tuple=True)
    document = batch.attention.document[rows]
    own = document == document.gather(1, columns[:, None])
    last = columns[:, None] - int(reads == "before")
    within = columns.new_tensor(range(states.shape[1])) <= last
    return states[rows], within & own & batch.attention.valid[rows]


def last_positions(
    states: Float[Tensor, "K T D"], real: Bool[Tensor, "K T"], num: int
) -> tuple[Float[Tensor, "K n D"], Bool[Tensor, "K n"]]:
    """The last `num` real positions of every row, at the end; where there are fewer, zeros come first."""
    from_end = real.flip(1).cumsum(1).flip(1)
    rows, columns = torch.nonzero(real & (from_end <= num), as_tuple=True)
    places = num - from_end[rows, columns]
    chosen = states.new_zeros(len(states), num, states.shape[2])
    mask = real.new_zeros(len(states), num)
    mask[rows, places] = True
    return chosen.index_put((rows, places), states[rows, columns]), mask


def medium_items(batch: Batch, head: Head, node: str) -> list[int]:
    """Number of the medium of encoder node `node` that each of the head's items belongs to.

    Raises:
        PlacementError: an item without a medium.
    """
    outputs = head.items(batch)
    if outputs is None:
        return []
    items = [pair[1] for pair in outputs.condition if pair is not None]
    if len(items) != len(outputs.document):
        missing = len(outputs.document) - len(items)
        raise PlacementError(
            f"{missing} outputs of node {head.node!r} belong to no medium; its encoder node {node!r} needs one before "
            f"each (samples {', '.join(batch.sample_ids[:3])})"
        )
    return items
