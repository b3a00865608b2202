"""What the losses of a step add up to, over batches and ranks: by loss, and by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from mmunify.train.ranks import exchange
from mmunify.types import Batch, StepReport


class Entry(NamedTuple):
    """Sum, count and weight of a loss in one batch of one rank, as plain numbers."""

    name: str
    total: float
    count: float
    weight: float


@dataclass(slots=True)
class StepTotals:
    """Sums and counts of one optimiser step over all ranks and all batches of the window, by loss, with their weights.

    Auxiliary scalars are in it as "aux/name": their sum, the number of batches, weight 1. Losses of the samples of one
    task are in it as "task/NAME/loss", with weight 0: the loss itself counts them already.

    Attributes:
        tasks: that the step's samples have.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)

    def add(self, name: str, total: float, count: float, weight: float) -> None:
        """Add what one batch of one rank has."""
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0.0) + count
        self.weights[name] = weight

    def means(self) -> dict[str, float]:
        """The losses themselves."""
        return {name: total / max(1.0, self.counts[name]) for name, total in self.sums.items()}

    @property
    def loss(self) -> float:
        """Their weighted sum."""
        return sum(self.weights[name] * mean for name, mean in self.means().items())

    def metrics(self) -> dict[str, float]:
        """All of them under "loss"; the whole loss under its task's name too, where all samples have the same."""
        named = {f"loss/{name}": mean for name, mean in self.means().items()}
        whole = {f"loss/task/{task}": self.loss for task in self.tasks if len(self.tasks) == 1}
        return {"loss": self.loss, **named, **whole}


Told = tuple[list[Entry], set[str]]
"""What a rank has to tell of a batch: its losses and its tasks."""


def tell(report: StepReport, batch: Batch, tasks: Sequence[str]) -> Told:
    """What a report says, as plain numbers.

    Args:
        report: of the batch.
        batch: whose documents have tasks.
        tasks: names of the rows of the task table; none = tasks are not told apart.
    """
    sums = {name: float(loss.detach()) for name, loss in report.losses.items()}
    entries = [Entry(name, total, float(report.counts[name]), report.weights[name]) for name, total in sums.items()]
    entries += [Entry(f"aux/{name}", float(value.detach()), 1.0, 1.0) for name, value in report.aux.items()]
    if not tasks:
        return entries, set()
    named = [tasks[int(task)] for task in batch.task.tolist()]
    entries += [entry for name, table in by_document(report) for entry in _by_task(name, table, named)]
    return entries, set(named)


def tell_counts(counts: Mapping[str, Tensor]) -> Told:
    """What divides the losses of a batch, before they are known."""
    return [Entry(name, 0.0, float(count), 0.0) for name, count in counts.items()], set()


def gather(told: list[Told]) -> StepTotals:
    """Sums and counts over what all ranks tell; every rank must call it, once for both losses and tasks."""
    totals = StepTotals()
    for entries, tasks in exchange(told):
        totals.tasks |= tasks
        for entry in entries:
            totals.add(*entry)
    return totals


def by_document(report: StepReport) -> list[tuple[str, Tensor]]:
    """Losses that heads tell document by document, as [2 docs]: sums with their graph, and counts."""
    return [(f"{node}/{loss}", t) for node, out in report.outputs.items() for loss, t in out.documents.items()]


def _by_task(name: str, table: Tensor, tasks: Sequence[str]) -> list[Entry]:
    sums, counts = table.detach().tolist()
    return [Entry(f"task/{task}/{name}", total, n, 0.0) for task, total, n in zip(tasks, sums, counts, strict=True)]
