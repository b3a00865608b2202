"""Examples -> Batch: rows padded on the right, media and outputs packed over the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmunify.data.encode import IGNORED, Example, MediaItem, OutputItem
from mmunify.errors import DataError
from mmunify.types import Attention, Batch, MediaBatch, OutputBatch

PAD_TO = 32
"""Rows are padded to a multiple of this. Kernels are made per shape: with few shapes they are made once and kept,
with a new one each step they cost time, and on CPUs in bfloat16 about 20 MB of memory per step."""


def collate(examples: Sequence[Example], pad_id: int = 0, pad_to: int = PAD_TO) -> Batch:
    """One row per example; a row's document is the row.

    Args:
        examples: at least one.
        pad_id: id at padding positions.
        pad_to: the rows' length is a multiple of it.

    Raises:
        DataError: no example at all.
    """
    if not examples:
        raise DataError("an empty list of examples can't be collated; the data set or the filter left nothing")
    longest = max(len(example.input_ids) for example in examples)
    length = -(-longest // pad_to) * pad_to
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    valid = torch.arange(length)[None, :] < lengths[:, None]
    documents = torch.arange(len(examples))[:, None].expand(-1, length)
    return Batch(
        input_ids=_pad([e.input_ids for e in examples], length, pad_id),
        labels=_pad([e.labels for e in examples], length, IGNORED),
        position_ids=_pad([e.position_ids for e in examples], length, 0),
        attention=Attention(
            document=documents.where(valid, -1),
            segment=_pad([e.segment for e in examples], length, 0),
            full=_pad([e.full for e in examples], length, 0).bool(),
            valid=valid,
        ),
        task=torch.tensor([e.task for e in examples]),
        media={node: _media(examples, node, length) for node in _nodes(examples, "media")},
        outputs={node: _outputs(examples, node, length) for node in _nodes(examples, "outputs")},
        sample_ids=tuple(e.id for e in examples),
        keys=tuple(e.key for e in examples),
    )


def _nodes(examples: Sequence[Example], side: str) -> list[str]:
    return sorted({node for example in examples for node in getattr(example, side)})


def _pad(rows: Sequence[Sequence[int]], length: int, value: int) -> Tensor:
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for row, numbers in zip(padded, rows, strict=True):
        row[: len(numbers)] = torch.as_tensor(numbers, dtype=torch.long)
    return padded


def _slots(examples: Sequence[Example], side: str, node: str, length: int) -> Tensor | None:
    slots = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in zip(slots, examples, strict=True):
        for item in getattr(example, side).get(node, ()):
            row[list(item.slots)] = True
    return slots if bool(slots.any()) else None


def _items(examples: Sequence[Example], side: str, node: str) -> tuple[list[MediaItem | OutputItem], Tensor]:
    found = [(i, item) for i, example in enumerate(examples) for item in getattr(example, side).get(node, ())]
    return [item for _, item in found], torch.tensor([i for i, _ in found])


def _media(examples: Sequence[Example], node: str, length: int) -> MediaBatch:
    items, document = _items(examples, "media", node)
    return MediaBatch(
        values=_with_items(_stack_values(items), examples, node),  # type: ignore[arg-type]
        slots=_slots(examples, "media", node, length),
        document=document,
        extent=torch.tensor([item.extent for item in items]),  # type: ignore[union-attr]
    )


def _stack_values(items: Sequence[MediaItem]) -> Tensor:
    """One tensor; items whose encoder knows their real size are filled up with zeros, at the end of every axis."""
    values = [item.values for item in items]
    sizes = torch.tensor([value.shape for value in values])
    if bool((sizes == sizes[0]).all()) or not all(item.any_size for item in items):
        return torch.stack(values)
    stacked = values[0].new_zeros(len(values), *sizes.amax(dim=0).tolist())
    for row, value in zip(stacked, values, strict=True):
        row[tuple(slice(length) for length in value.shape)] = value
    return stacked


def _with_items(values: Tensor, examples: Sequence[Example], node: str) -> Tensor:
    """Rows of regions begin with the number of their medium: the samples' own, shifted to items of the batch."""
    numbers: list[int] = []
    before: dict[str, int] = {}
    for example in examples:
        parts = [item.part_of for item in example.media.get(node, ())]
        numbers += [before.get(part[0], 0) + part[1] for part in parts if part is not None]
        for name, items in example.media.items():
            before[name] = before.get(name, 0) + len(items)
    if numbers:
        values[:, 0] = torch.tensor(numbers)
    return values


def _outputs(examples: Sequence[Example], node: str, length: int) -> OutputBatch:
    items, document = _items(examples, "outputs", node)
    targets = [item.target for item in items]  # type: ignore[union-attr]
    known = [target for target in targets if target is not None]
    return OutputBatch(
        slots=_slots(examples, "outputs", node, length),
        document=document,
        target=_stack(known) if len(known) == len(targets) else None,
        condition=_conditions(examples, node),
    )


def _stack(targets: list[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(targets) if len({target.shape for target in targets}) == 1 else targets


def _conditions(examples: Sequence[Example], node: str) -> tuple[tuple[str, int] | None, ...]:
    """The samples' own item numbers, shifted to items of the batch."""
    conditions: list[tuple[str, int] | None] = []
    before: dict[str, int] = {}
    for example in examples:
        for item in example.outputs.get(node, ()):
            found = item.condition
            conditions.append(None if found is None else (found[0], before.get(found[0], 0) + found[1]))
        for name, items in example.media.items():
            before[name] = before.get(name, 0) + len(items)
    return tuple(conditions)
