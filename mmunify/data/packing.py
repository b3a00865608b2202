"""Batches measured in positions, and rows that hold several samples.

Both lay out the samples that a batch has anyway, so that a step sees the same samples with them and without.
"""

import math
from collections.abc import Sequence

from mmunify.data.collate import PAD_TO, collate_rows
from mmunify.data.encode import Example
from mmunify.data.processor import Processor
from mmunify.errors import DataError
from mmunify.types import Batch, Sample


class RowPacker:
    """A processor that makes one or more batches of a list of samples.

    Args:
        processor: lays samples out; its `max_length` is the longest row.
        packing: rows hold several samples. As few rows as fit, of about equal length; no sample is ever divided.
        batch_tokens: largest number of positions of a batch, padding included; None = all samples in one batch.

    Raises:
        DataError: `batch_tokens` leaves no room for a row.
    """

    def __init__(self, processor: Processor, packing: bool = False, batch_tokens: int | None = None) -> None:
        if batch_tokens is not None and batch_tokens < PAD_TO:
            raise DataError(f"batch_tokens={batch_tokens}: rows come in multiples of {PAD_TO} positions")
        self.processor, self.packing = processor, packing
        self.batch_tokens = batch_tokens or math.inf
        room = processor.max_length if batch_tokens is None else batch_tokens // PAD_TO * PAD_TO
        self.row_length = min(processor.max_length, room)

    def encode(self, sample: Sample) -> Example:
        """Lay one sample out.

        Raises:
            DataError: it can't be read, or is longer than a row.
        """
        example = self.processor.encode(sample)
        if len(example.input_ids) > self.row_length:
            raise DataError(
                f"sample {sample.id!r} has {len(example.input_ids)} positions, and a row of "
                f"batch_tokens={self.batch_tokens} has {self.row_length}; raise batch_tokens or shorten the sample"
            )
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        """All examples in one batch."""
        return self.processor.collate(examples)

    def blank(self) -> Batch:
        """A batch of one position, with nothing to learn."""
        nothing = Example(input_ids=[self.processor.pad_id], labels=[-100], position_ids=[0], segment=[0], full=[False])
        return self.processor.collate([nothing])

    def batches(self, examples: Sequence[Example]) -> list[Batch]:
        """Examples -> batches of at most `batch_tokens` positions."""
        lengths = [len(example.input_ids) for example in examples]
        if self.packing:
            rows = pack_rows(lengths, self.row_length)
        else:  # the longest together: the least padding
            rows = [[place] for place in sorted(range(len(lengths)), key=lambda place: -lengths[place])]
            rows = rows if self.batch_tokens < math.inf else [[place] for place in range(len(lengths))]
        sizes = [sum(lengths[place] for place in row) for row in rows]
        return [
            collate_rows([[examples[place] for place in rows[number]] for number in batch], self.processor.pad_id)
            for batch in _divide(sizes, self.batch_tokens)
        ]


def pack_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Places of the examples of every row: as few rows as fit, of about equal length.

    The longest example that is left goes to the shortest row. Rows, and examples in a row, keep their order.

    Args:
        lengths: of the examples; none above `row_length`.
        row_length: of the rows.
    """
    number = max(1, math.ceil(sum(lengths) / row_length))
    while True:
        rows, sizes = _spread(lengths, number)
        if max(sizes) <= row_length:
            return sorted(sorted(row) for row in rows if row)
        number += 1


def _spread(lengths: Sequence[int], number: int) -> tuple[list[list[int]], list[int]]:
    rows: list[list[int]] = [[] for _ in range(number)]
    sizes = [0] * number
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        shortest = sizes.index(min(sizes))
        rows[shortest].append(place)
        sizes[shortest] += lengths[place]
    return rows, sizes


def _divide(sizes: Sequence[int], limit: float) -> list[list[int]]:
    """Consecutive rows as long as number times (padded) longest stays within the limit."""
    batches: list[list[int]] = [[]]
    longest = 0
    for number, size in enumerate(sizes):
        padded = -(-size // PAD_TO) * PAD_TO
        longest = max(longest, padded)
        if batches[-1] and (len(batches[-1]) + 1) * longest > limit:
            batches.append([])
            longest = padded
        batches[-1].append(number)
    return batches
