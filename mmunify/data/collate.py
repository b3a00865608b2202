"""Examples -> Batch: rows of one or several documents, padded on the right; media and outputs packed over the batch."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

from mmunify.data.cache.items import join_items
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
    return collate_rows([[example] for example in examples], pad_id, pad_to)


def collate_rows(rows: Sequence[Sequence[Example]], pad_id: int = 0, pad_to: int = PAD_TO) -> Batch:
    """Rows of one or several examples, one behind the other; every example is a document of its own.

    The first position of a document is never learned: nothing before it could predict it.

    Args:
        rows: at least one, each with at least one example.
        pad_id: id at padding positions.
        pad_to: the rows' length is a multiple of it.

    Raises:
        DataError: no example at all.
    """
    examples = [example for row in rows for example in row]
    if not examples:
        raise DataError("an empty list of examples can't be collated; the data set or the filter left nothing")
    lengths = torch.tensor([sum(len(example.input_ids) for example in row) for row in rows])
    length = -(-int(lengths.max()) // pad_to) * pad_to
    valid = torch.arange(length)[None, :] < lengths[:, None]
    return Batch(
        input_ids=_pad(_join(rows, "input_ids"), length, pad_id),
        labels=_pad(_join(rows, "labels"), length, IGNORED).masked_fill_(_beginnings(rows, length), IGNORED),
        position_ids=_pad(_join(rows, "position_ids"), length, 0),
        attention=Attention(
            document=_documents(rows, length),
            segment=_pad(_join(rows, "segment"), length, 0),
            full=_pad(_join(rows, "full"), length, 0).bool(),
            valid=valid,
        ),
        task=torch.tensor([e.task for e in examples]),
        media={node: _media(rows, node, length) for node in _nodes(examples, "media")},
        outputs={node: _outputs(rows, node, length) for node in _nodes(examples, "outputs")},
        sample_ids=tuple(e.id for e in examples),
        keys=tuple(e.key for e in examples),
        turn_task=_turn_tasks(rows, length),
    )


def _nodes(examples: Sequence[Example], side: str) -> list[str]:
    return sorted({node for example in examples for node in getattr(example, side)})


def _pad(rows: Sequence[Sequence[int]], length: int, value: int) -> Tensor:
    padded = torch.full((len(rows), length), value, dtype=torch.long)
    for row, numbers in zip(padded, rows, strict=True):
        row[: len(numbers)] = torch.as_tensor(numbers, dtype=torch.long)
    return padded


def _join(rows: Sequence[Sequence[Example]], side: str) -> list[list[int]]:
    return [list(chain.from_iterable(getattr(example, side) for example in row)) for row in rows]


def _starts(rows: Sequence[Sequence[Example]]) -> Iterator[tuple[int, int, Example]]:
    """(row, first position, example) of every document, in order."""
    for number, row in enumerate(rows):
        start = 0
        for example in row:
            yield number, start, example
            start += len(example.input_ids)


def _turn_tasks(rows: Sequence[Sequence[Example]], length: int) -> Tensor | None:
    """Task of every position, where a sample has turns of several tasks."""
    if not any(example.turn_task for row in rows for example in row):
        return None
    tasks = [[example.turn_task or [example.task] * len(example.input_ids) for example in row] for row in rows]
    return _pad([list(chain.from_iterable(row)) for row in tasks], length, 0)


def _documents(rows: Sequence[Sequence[Example]], length: int) -> Tensor:
    documents = torch.full((len(rows), length), -1)
    for number, (row, start, example) in enumerate(_starts(rows)):
        documents[row, start : start + len(example.input_ids)] = number
    return documents


def _beginnings(rows: Sequence[Sequence[Example]], length: int) -> Tensor:
    first = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, start, example in _starts(rows):
        first[row, start : start + min(1, len(example.input_ids))] = True
    return first


def _slots(rows: Sequence[Sequence[Example]], side: str, node: str, length: int) -> Tensor | None:
    slots = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, start, example in _starts(rows):
        for item in getattr(example, side).get(node, ()):
            slots[row, [start + place for place in item.slots]] = True
    return slots if bool(slots.any()) else None


def _items(examples: Sequence[Example], side: str, node: str) -> tuple[list[MediaItem | OutputItem], Tensor]:
    found = [(i, item) for i, example in enumerate(examples) for item in getattr(example, side).get(node, ())]
    return [item for _, item in found], torch.tensor([i for i, _ in found])


def _media(rows: Sequence[Sequence[Example]], node: str, length: int) -> MediaBatch:
    examples = [example for row in rows for example in row]
    items, document = _items(examples, "media", node)
    stored = [item.stored for item in items if item.stored is not None]  # type: ignore[union-attr]
    cached = len(stored) == len(items)
    return MediaBatch(
        values=None if cached else _with_items(_stack_values(items), examples, node),  # type: ignore[arg-type]
        features=join_items(stored) if cached else None,
        keys=() if cached else tuple(item.key for item in items),  # type: ignore[union-attr]
        slots=_slots(rows, "media", node, length),
        document=document,
        extent=torch.tensor([item.extent for item in items]),  # type: ignore[union-attr]
        **_side_texts(items),  # type: ignore[arg-type]
    )


def _side_texts(items: Sequence[MediaItem]) -> dict[str, Tensor]:
    """Ids of the words beside the items, padded on the right, and which are real; nothing where there are no words."""
    longest = max(len(item.side) for item in items)
    if not longest:
        return {}
    lengths = torch.tensor([len(item.side) for item in items])
    mask = torch.arange(longest)[None, :] < lengths[:, None]
    return {"side_ids": _pad([item.side for item in items], longest, 0), "side_mask": mask}


def _stack_values(items: Sequence[MediaItem]) -> Tensor:
    """One tensor; items whose encoder knows their real size are filled up with zeros, at the end of every axis."""
    items = [item if item.reread is None else item.reread() for item in items]
    values = [item.values for item in items if item.values is not None]
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


def _outputs(rows: Sequence[Sequence[Example]], node: str, length: int) -> OutputBatch:
    examples = [example for row in rows for example in row]
    items, document = _items(examples, "outputs", node)
    targets = [item.target for item in items]  # type: ignore[union-attr]
    known = [target for target in targets if target is not None]
    return OutputBatch(
        slots=_slots(rows, "outputs", node, length),
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
