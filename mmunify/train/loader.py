"""From a mixture to the windows of one stage: which sample goes to which rank, in which step, resumable exactly."""

import multiprocessing
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mmunify.data.mixture import Mixture
from mmunify.errors import DataError
from mmunify.paths import resolve_paths
from mmunify.recipe import Stage
from mmunify.registry import DATASETS
from mmunify.types import Batch, Sample


@runtime_checkable
class SampleSequence(Protocol):
    """An endless sequence of samples, such as a `Mixture`."""

    def __getitem__(self, k: int) -> Sample:
        """Sample k, the same each time."""
        ...


@runtime_checkable
class BatchMaker(Protocol):
    """What makes batches of samples, such as a `Processor`."""

    def encode(self, sample: Sample) -> Any:
        """Lay one sample out."""
        ...

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Join laid out samples."""
        ...


def stage_samples(stage: Stage, seed: Sequence[int]) -> Mixture:
    """The endless sequence of a stage's samples.

    Args:
        stage: of the recipe: its `data:` and `mix:`.
        seed: numbers that the order depends on.

    Raises:
        RecipeError: a data node has faults.
        DataError: no data, an empty data set, `mix: task`.
    """
    if stage.mix == "task":
        raise DataError(f"stage {stage.name!r}: no mix: task yet; give every task a data node and use mix: source")
    sources = []
    for node in stage.data:
        arguments = resolve_paths({key: value for key, value in node.items() if key not in ("weight", "batch_size")})
        sources.append((DATASETS.build(arguments), float(node.get("weight", 1.0))))
    order = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    return Mixture(sources, order, group=stage.batch_size if stage.mix == "source" else 1)


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


class WindowLoader:
    """The windows of a stage, one per optimiser step.

    A step takes `batch_size * accumulate * world` consecutive samples of the sequence; each batch is a run of
    `batch_size` of them, first all batches of rank 0, then those of rank 1, and so on. So two ranks see together what
    one rank with twice the batch size sees.

    Args:
        samples: the sequence.
        processor: makes batches.
        batch_size: samples of one batch.
        steps: windows of the stage.
        accumulate: batches of one window.
        rank, world: of this process.
        num_workers: processes that read ahead; 0 = this one reads.
        pin_memory: whether batches are pinned for copies to a GPU.
    """

    def __init__(
        self,
        samples: SampleSequence,
        processor: BatchMaker,
        *,
        batch_size: int,
        steps: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.samples, self.processor = samples, processor
        self.batch_size, self.steps, self.accumulate = batch_size, steps, accumulate
        self.rank, self.world = rank, world
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.position = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Window]:
        batches = iter(self._dataloader())
        while self.position < self.steps:
            window = Window(list(islice(batches, self.accumulate)))
            self.position += 1
            yield window

    def state_dict(self) -> dict[str, int]:
        """Where the run is: the number of windows that were handed out."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the windows that were handed out."""
        self.position = state["position"]

    def indices(self, step: int) -> list[list[int]]:
        """Sample numbers of every batch of one step on this rank."""
        size = self.batch_size
        first = (step * self.world + self.rank) * self.accumulate * size
        return [list(range(first + a * size, first + (a + 1) * size)) for a in range(self.accumulate)]

    def _dataloader(self) -> DataLoader:
        batches = [batch for step in range(self.position, self.steps) for batch in self.indices(step)]
        # Forked workers share this process's memory: no second import of torch, no copy of the data set.
        can_fork = "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()
        return DataLoader(
            _Encoded(self.samples, self.processor),
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=self.processor.collate,
            num_workers=self.num_workers,
            multiprocessing_context="fork" if self.num_workers and can_fork else None,
            pin_memory=self.pin_memory,
        )


class _Encoded(Dataset):
    """Samples by number, laid out."""

    def __init__(self, samples: SampleSequence, processor: BatchMaker) -> None:
        self.samples, self.processor = samples, processor

    def __getitem__(self, k: int) -> Any:
        return self.processor.encode(self.samples[k])
