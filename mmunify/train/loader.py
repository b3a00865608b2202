"""From a mixture to the windows of one stage: which sample goes to which rank, in which step, resumable exactly."""

import math
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mmunify.data.bad_samples import BadSamples
from mmunify.data.mixture import Mixture, Source, split_by_task
from mmunify.data.packing import RowPacker
from mmunify.data.processor import Processor
from mmunify.errors import DataError, UserError
from mmunify.model import UnifiedModel
from mmunify.paths import resolve_paths
from mmunify.recipe import Stage
from mmunify.recipe.merging import DATA_KEYS
from mmunify.registry import DATASETS
from mmunify.train.ranks import exchange
from mmunify.train.window import BatchMaker, Made, Order, Reader, SampleSequence, Window
from mmunify.types import Batch

NUM_PROBES = 256
"""Samples whose mean length turns a stage's `tokens:` into steps."""


def stage_samples(stage: Stage, seed: Sequence[int]) -> Mixture:
    """The endless sequence of a stage's samples.

    Args:
        stage: of the recipe: its `data:`, `mix:` and `temperature:`.
        seed: numbers that the order depends on.

    Raises:
        RecipeError: a data node has faults.
        DataError: no data, an empty data set, weights that aren't positive.
    """
    sources: list[tuple[Source, float]] = []
    sizes: list[int] = []
    for node in stage.data:
        source = DATASETS.build(resolve_paths({key: value for key, value in node.items() if key not in DATA_KEYS}))
        by_task = stage.mix == "task" and len(source) > 0
        parts = list(split_by_task(source).values()) if by_task else [(source, 1.0)]
        weight = float(node.get("weight", 1.0))
        # Under a temperature, the parts' own sizes make their shares.
        sources += [(part, weight if stage.temperature is not None else weight * share) for part, share in parts]
        sizes += [1 if stage.mix == "sample" else node.get("batch_size", stage.batch_size)] * len(parts)
    order = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    return Mixture(sources, order, temperature=stage.temperature, group_sizes=sizes)


def stage_batches(stage: Stage, processor: Processor) -> BatchMaker:
    """What makes a stage's batches: the processor, or one that packs rows or counts positions."""
    if not stage.packing and stage.batch_tokens is None:
        return processor
    return RowPacker(processor, stage.packing, stage.batch_tokens)


def stage_steps(stage: Stage, samples: Mixture, processor: BatchMaker, world: int = 1) -> int:
    """Optimiser steps of a stage that is measured in steps, epochs or tokens.

    An epoch is as many samples as all data sets have together. Tokens are positions without padding; their number is
    reached on average: steps follow from the mean length of the stage's first `NUM_PROBES` samples.
    """
    if stage.steps:
        return stage.steps
    size = stage.batch_size if stage.mix == "sample" else samples.mean_group
    per_step = size * stage.accumulate * world
    if stage.epochs is not None:
        return max(1, math.ceil(stage.epochs * samples.num_samples / per_step))
    reader = Reader(samples, processor)
    probes = [example for example, _ in map(reader.__getitem__, range(NUM_PROBES)) if example is not None]
    mean = float(np.mean([max(1, len(example.input_ids)) for example in probes])) if probes else 1.0
    return max(1, math.ceil((stage.tokens or 1) / (mean * per_step)))


def require_packing(stage: Stage, model: UnifiedModel) -> None:
    """Refuse packed rows for a model that would let documents see each other.

    Raises:
        UserError: the backbone doesn't keep documents apart, or there is none.
    """
    if stage.packing and (model.backbone is None or "packed" not in model.backbone.supports):
        raise UserError(
            f"stage {stage.name!r} says packing: true, but the backbone can't keep the documents of a row apart (it "
            "slides a window, has a recurrent state, or there is none); leave packing out"
        )


def require_samples(samples: SampleSequence, batch_size: int, world: int) -> None:
    """Refuse data sets that a batch over all processes would hold some samples of twice.

    Raises:
        DataError: with both numbers.
    """
    if isinstance(samples, Mixture) and samples.num_samples < batch_size * world:
        raise DataError(
            f"the stage's data sets have {samples.num_samples} samples, fewer than a batch of {batch_size} on each of "
            f"{world} processes; lower batch_size"
        )


class WindowLoader:
    """The windows of a stage, one per optimiser step.

    A step takes `batch_size * accumulate * world` consecutive samples of the sequence; each batch is a run of
    `batch_size` of them, first all batches of rank 0, then those of rank 1, and so on. So two ranks see together what
    one rank with twice the batch size sees.

    A processor that packs rows or counts positions may make several batches of a run; then ranks with fewer batches
    get blank ones, as all ranks must run the model equally often.

    A sample that can't be used is replaced by one that depends on its number alone, and counted. Ranks tell each other
    their counts in every step, so all of them have the same state, and all of them stop when there are too many.

    Args:
        samples: the sequence.
        processor: makes batches.
        batch_size: samples of one batch; a mixture whose batches have one source each may say otherwise.
        steps: windows of the stage.
        accumulate: batches of one window.
        rank, world: of this process.
        num_workers: processes that read ahead; 0 = this one reads.
        pin_memory: whether batches are pinned for copies to a GPU.
        bad_samples: largest share of samples that can't be used.

    Raises:
        DataError: a mixture with fewer samples than a batch over all ranks.
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
        bad_samples: float = 0.01,
    ) -> None:
        self.reader = Reader(samples, processor)
        self.batch_size, self.steps, self.accumulate = batch_size, steps, accumulate
        self.rank, self.world = rank, world
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.bad_samples = BadSamples(bad_samples)
        self.position = 0
        require_samples(samples, batch_size, world)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Window]:
        """The windows that are left.

        Raises:
            DataError: too many samples can't be used.
        """
        made = iter(self._dataloader())
        while self.position < self.steps:
            window = self._window(list(islice(made, self.accumulate)))
            self.position += 1
            yield window

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: the number of windows that were handed out, and the bad samples up to there."""
        return {"position": self.position, "bad_samples": self.bad_samples.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the windows that were handed out."""
        self.position = state["position"]
        if "bad_samples" in state:
            self.bad_samples.load_state_dict(state["bad_samples"])

    def indices(self, step: int) -> list[list[int]]:
        """Sample numbers of every batch of one step on this rank."""
        first = (step * self.world + self.rank) * self.accumulate
        return [self._members(first + number) for number in range(self.accumulate)]

    def _members(self, batch: int) -> list[int]:
        samples, size = self.reader.samples, self.batch_size
        if isinstance(samples, Mixture):
            return list(samples.members(batch, size))
        return list(range(batch * size, (batch + 1) * size))

    def _window(self, parts: Sequence[Made]) -> Window:
        """One step's batches; ranks share what they have to tell of them."""
        batches = [batch for made in parts for batch in made.batches]
        shares = exchange([([_told(made) for made in parts], len(batches))])
        self._count([made for told, _ in shares for made in told])
        return Window(batches + self._blanks(max(number for _, number in shares) - len(batches)))

    def _count(self, made: Sequence[Made]) -> None:
        """Note what ranks have read for a step; the first one warns."""
        for one in made:
            if not one.is_whole:
                self.bad_samples.refuse(one.bad)
        bad = sorted(chain.from_iterable(one.bad for one in made), key=lambda one: one.number)
        listed = self.bad_samples.add(sum(one.num_good for one in made), bad)
        if self.rank == 0:
            self.bad_samples.warn(listed)

    def _blanks(self, number: int) -> list[Batch]:
        """Batches without anything to learn."""
        maker = self.reader.processor
        return [maker.blank() for _ in range(number)] if isinstance(maker, RowPacker) else []

    def _dataloader(self) -> DataLoader:
        # Forked workers share this process's memory: no second import of torch, no copy of the data set.
        can_fork = "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()
        return DataLoader(
            self.reader,
            batch_sampler=Order(self.indices, self.position, self.steps, self.accumulate),  # type: ignore[arg-type]
            collate_fn=self.reader.make,
            num_workers=self.num_workers,
            multiprocessing_context="fork" if self.num_workers and can_fork else None,
            pin_memory=self.pin_memory,
        )


def _told(made: Made) -> Made:
    """What other ranks need to know of a part of the step: all but its batches."""
    return replace(made, batches=())
