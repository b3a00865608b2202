"""The batches of one optimiser step, and how a data loader's worker makes them of sample numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import Dataset

from mmunify.data.bad_samples import BadSample
from mmunify.errors import DataError
from mmunify.types import Batch, Sample

MAX_ATTEMPTS = 10
"""Samples that are tried for one place, the first one included."""


@runtime_checkable
class SampleSequence(Protocol):
    """An endless sequence of samples."""

    def __getitem__(self, k: int) -> Sample:
        """Sample k, the same each time."""
        ...


@runtime_checkable
class ReplacingSequence(SampleSequence, Protocol):
    """A sequence that knows what takes the place of a sample that can't be used, such as a `Mixture`."""

    def substitute(self, k: int, attempt: int) -> Sample:
        """What takes the place of sample k after `attempt` failures, the same each time; 0 = itself."""
        ...

    def describe(self, k: int, attempt: int = 0) -> str:
        """Name of a sample that can't be read."""
        ...


@runtime_checkable
class BatchMaker(Protocol):
    """What makes a batch of samples, such as a `Processor`."""

    def encode(self, sample: Sample) -> Any:
        """Lay one sample out."""
        ...

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Join laid out samples."""
        ...


@runtime_checkable
class DividingBatchMaker(BatchMaker, Protocol):
    """What may make several batches of samples, such as a `RowPacker`."""

    def batches(self, examples: Sequence[Any]) -> list[Batch]:
        """Join laid out samples to one or more batches."""
        ...


class Window:
    """The batches of one optimiser step on one rank; more than one when gradients accumulate.

    A plain object with `to` and `pin_memory`: what moves data to devices takes it as a whole.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = tuple(batches)

    def to(self, *args: Any, **kwargs: Any) -> "Window":
        """Move every batch, as `Tensor.to` does."""
        return Window([batch.to(*args, **kwargs) for batch in self.batches])

    def pin_memory(self) -> "Window":
        """Pin every batch."""
        return Window([batch.pin_memory() for batch in self.batches])

    @property
    def sample_ids(self) -> list[str]:
        """Ids of all samples inside."""
        return [name for batch in self.batches for name in batch.sample_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of some sample numbers.

    Attributes:
        batches: of the samples, or of those that took the place of bad ones.
        num_good: samples in them.
        bad: samples that couldn't be used.
        is_whole: False where neither a sample nor any that was to take its place could be used.
    """

    batches: tuple[Batch, ...]
    num_good: int
    bad: tuple[BadSample, ...]
    is_whole: bool = True

    def pin_memory(self) -> "Made":
        """Pin every batch."""
        return replace(self, batches=tuple(batch.pin_memory() for batch in self.batches))


class Reader(Dataset):
    """Samples by number, laid out; what can't be used is replaced and told."""

    def __init__(self, samples: SampleSequence, processor: BatchMaker) -> None:
        self.samples, self.processor = samples, processor

    def __getitem__(self, k: int) -> tuple[Any, tuple[BadSample, ...]]:
        """(sample k laid out, or what takes its place; the bad ones before it). None = all attempts failed."""
        if not isinstance(self.samples, ReplacingSequence):
            return self.processor.encode(self.samples[k]), ()
        bad: list[BadSample] = []
        for attempt in range(MAX_ATTEMPTS):
            name = ""
            try:
                sample = self.samples.substitute(k, attempt)
                name = sample.id
                return self.processor.encode(sample), tuple(bad)
            except DataError as error:
                name = name or self.samples.describe(k, attempt)
                bad.append(BadSample(number=k, id=name, reason=str(error).removeprefix(f"sample {name!r}: ")))
        return None, tuple(bad)

    def make(self, read: Sequence[tuple[Any, tuple[BadSample, ...]]]) -> Made:
        """The batches of samples that were read together."""
        examples, bad = [example for example, _ in read], tuple(one for _, found in read for one in found)
        if any(example is None for example in examples):
            failed = next(found for example, found in read if example is None)
            return Made(batches=(), num_good=0, bad=failed, is_whole=False)
        maker = self.processor
        batches = maker.batches(examples) if isinstance(maker, DividingBatchMaker) else [maker.collate(examples)]
        return Made(batches=tuple(batches), num_good=len(examples), bad=bad)


@dataclass(frozen=True, slots=True)
class Order:
    """Sample numbers of the batches of a run's steps, made as they are asked for."""

    indices: Any
    start: int
    stop: int
    per_step: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            yield from self.indices(step)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.per_step
