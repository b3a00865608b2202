"""The Lightning module that runs any stage: losses as global sums over global counts, one optimiser step per window."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from mmunify.errors import CheckpointError, TrainingError
from mmunify.layers.modes import set_modes
from mmunify.recipe import Stage
from mmunify.train.average import Average
from mmunify.train.fsdp2 import Fsdp2Strategy
from mmunify.train.layers import LayerOptions
from mmunify.train.loader import Window, WindowLoader
from mmunify.train.optim import build_adamw, build_adamw_8bit, parameter_groups, rate_factor, set_rates
from mmunify.train.ranks import exchange, num_ranks, whole
from mmunify.types import Batch, StepReport

MakeLoader = Callable[[int, int, bool], WindowLoader]


@dataclass(slots=True)
class StepTotals:
    """Sums and counts of one optimiser step over all ranks and all batches of the window, by loss, with their weights.

    Auxiliary scalars are in it as "aux/name": their sum, the number of batches, weight 1.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

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


class StageModule(pl.LightningModule):
    """Runs one stage.

    A loss is a sum over all ranks and all batches of the window, divided by the count over the same. When gradients
    accumulate, the counts are needed before the first backward pass, so a forward pass without gradients counts first.

    Every step reseeds all generators with (seed, step, rank): a resumed run draws what an uninterrupted one draws.

    Args:
        model: answers a `Batch` with a `StepReport`; what learns must have been applied.
        stage: of the recipe.
        make_loader: (rank, number of processes, whether to pin memory) -> the stage's windows.
        seed: of the run.
        first_step: steps of the run before this stage.
        layers: what is done with transformer layers.

    Attributes:
        average: running mean of what learns, where the stage has `ema:`.
    """

    average: Average | None

    def __init__(
        self,
        model: nn.Module,
        stage: Stage,
        make_loader: MakeLoader,
        seed: int = 0,
        first_step: int = 0,
        layers: LayerOptions | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold what learns; the rest comes from the recipe and earlier stages
        self.model, self.stage, self.make_loader = model, stage, make_loader
        self.seed, self.first_step = seed, first_step
        self.layers, self.average, self.is_configured = layers or LayerOptions(), None, False
        self.curve: list[float] = []
        self.num_dropped, self.dropped_in_row = 0, 0
        self.step_metrics: dict[str, float] = {}

    # --------------------------------------------------------------------------------------- Lightning's hooks

    def configure_model(self) -> None:
        """Change the layers, then split the model where the strategy does that; the mean is split likewise."""
        if self.is_configured:
            return
        self.is_configured = True
        self.layers.apply(self.model)
        strategy = self.trainer.strategy
        if isinstance(strategy, Fsdp2Strategy):
            strategy.shard(self.model, torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None)
        if self.stage.ema:
            self.average = Average(self.model, self.stage.ema)

    def train_dataloader(self) -> Any:
        """The stage's windows for this process."""
        return self.make_loader(self.global_rank, self.trainer.world_size, self.device.type == "cuda")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The stage's optimiser over what learns."""
        optim, path = self.stage.optim, f"stages.{self.stage.name}.optim"
        groups = parameter_groups(
            self.model, lr=optim.lr, weight_decay=optim.weight_decay, groups=optim.groups, path=path
        )
        build = build_adamw_8bit if optim.name == "adamw_8bit" else build_adamw
        return build(groups, optim.betas)

    def on_fit_start(self) -> None:
        """Frozen dropout and normalisation stay in eval mode."""
        set_modes(self.model)

    def training_step(self, window: Window, batch_idx: int) -> Tensor:
        """One optimiser step over a window; returns the detached loss."""
        reseed(self.seed, self.first_step + batch_idx, self.global_rank)
        batches = [self._stamp(batch, batch_idx) for batch in window.batches]
        optimizer: Any = self.optimizers()
        factor = self._rate_factor(batch_idx)
        set_rates(optimizer, factor)
        optimizer.zero_grad()
        totals = self._backward(batches)
        norm = self._clip(optimizer)
        loss = self._log(totals, window, norm, factor)
        if np.isfinite(loss) and np.isfinite(norm):
            optimizer.step()
            self.dropped_in_row = 0
            if self.average is not None:
                self.average.update(self.model, batch_idx)
        else:
            self._drop(window, loss, norm, optimizer)
        return torch.tensor(loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the learning parameters and the buffers, drop the rest of the weights; add the loss curve."""
        frozen = {f"model.{name}" for name, p in self._named_parameters() if not p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name not in frozen}
        checkpoint["mmunify"] = {
            "curve": list(self.curve),
            "num_dropped": self.num_dropped,
            "dropped_in_row": self.dropped_in_row,
            "stage": self.stage.name,
            "samples_per_step": self._samples_per_step,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the loss curve back.

        Raises:
            CheckpointError: a step took another number of samples, so the order of samples would change.
        """
        saved = checkpoint["mmunify"]
        if saved["samples_per_step"] != self._samples_per_step:
            raise CheckpointError(
                f"the checkpoint of stage {self.stage.name!r} was written with {saved['samples_per_step']} samples per "
                f"step, this run has {self._samples_per_step} ({num_ranks()} processes); keep batch_size * accumulate "
                "* processes as it was"
            )
        self.curve = list(saved["curve"])
        self.num_dropped, self.dropped_in_row = saved["num_dropped"], saved["dropped_in_row"]

    @property
    def _samples_per_step(self) -> int:
        return self.stage.batch_size * self.stage.accumulate * num_ranks()

    # --------------------------------------------------------------------------------------- one step

    def _stamp(self, batch: Batch, batch_idx: int) -> Batch:
        return replace(batch, seed=self.seed, step=self.first_step + batch_idx)

    def _rate_factor(self, batch_idx: int) -> float:
        optim, steps = self.stage.optim, self.stage.steps
        return rate_factor(batch_idx, steps, warmup=optim.warmup, schedule=optim.schedule, floor=optim.floor)

    def _backward(self, batches: list[Batch]) -> StepTotals:
        """Gradients of the window's loss. Ranks average gradients, so each contributes `world` times its share."""
        if len(batches) == 1:
            report = self.model(batches[0])
            totals = self._gather([report])
            self.manual_backward(self._share(report, totals, 1))
            return totals
        counted = self._gather([self._count(batch) for batch in batches])
        reports = []
        for place, batch in enumerate(batches):
            report = self.model(batch)
            with self._sync(place == len(batches) - 1):
                self.manual_backward(self._share(report, counted, len(batches)))
            reports.append(replace(report, losses={k: v.detach() for k, v in report.losses.items()}, outputs={}))
        return self._gather(reports)

    def _count(self, batch: Batch) -> StepReport:
        with torch.no_grad():
            return self.model(batch)

    def _share(self, report: StepReport, totals: StepTotals, num_batches: int) -> Tensor:
        """This batch's part of the window's loss, on this rank."""
        scales = {name: self.trainer.world_size / max(1.0, count) for name, count in totals.counts.items()}
        terms = [report.weights[name] * scales[name] * loss for name, loss in report.losses.items()]
        terms += [value / num_batches for value in report.aux.values()]
        if not terms:
            raise TrainingError(f"stage {self.stage.name!r}: the model reports no loss; give a head a weight")
        return sum(terms)  # type: ignore[return-value]

    def _gather(self, reports: list[StepReport]) -> StepTotals:
        """Sums and counts over the reports of all ranks."""
        totals = StepTotals()
        for entries in exchange([_entries(report) for report in reports]):
            for entry in entries:
                totals.add(*entry)
        return totals

    @contextmanager
    def _sync(self, last: bool) -> Iterator[None]:
        """Ranks exchange gradients in the last backward pass of a window alone."""
        strategy = self.trainer.strategy
        waits = isinstance(strategy, ParallelStrategy) and not last
        with strategy.block_backward_sync() if waits else nullcontext():  # type: ignore[attr-defined]
            yield

    def _clip(self, optimizer: Any) -> float:
        """Norm of the gradient over all that learns; clipped when the stage says so."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        return float(whole(nn.utils.clip_grad_norm_(parameters, self.stage.clip or float("inf"))))

    def _drop(self, window: Window, loss: float, norm: float, optimizer: Any) -> None:
        """Leave a step out; give up after too many in a row.

        Raises:
            TrainingError: with the samples of the last step, over all ranks.
        """
        optimizer.zero_grad()
        self.num_dropped += 1
        self.dropped_in_row += 1
        if self.dropped_in_row < self.stage.max_dropped:
            return
        ids = [name for part in exchange([window.sample_ids]) for name in part]
        raise TrainingError(
            f"stage {self.stage.name!r}: {self.dropped_in_row} steps in a row without a finite loss and gradient (last "
            f"loss {loss}, gradient norm {norm}); samples of the last step: {', '.join(ids)}. Lower optim.lr or check "
            "them"
        )

    # --------------------------------------------------------------------------------------- telemetry

    def _log(self, totals: StepTotals, window: Window, norm: float, factor: float) -> float:
        """Log the step; returns its loss over all ranks."""
        loss = totals.loss
        self.curve.append(loss)
        valid = sum(int(batch.attention.valid.sum()) for batch in window.batches)
        places = sum(batch.attention.valid.numel() for batch in window.batches)
        self.step_metrics = {
            "loss": loss,
            **{f"loss/{name}": mean for name, mean in totals.means().items()},
            **self._task_losses(window, loss),
            "lr": self.stage.optim.lr * factor,
            **{f"lr/{g['match']}": g["lr"] * factor for g in self.stage.optim.groups if g.get("lr")},
            "grad_norm": norm,
            "tokens": float(valid),
            "padding": 1 - valid / places if places else 0.0,
        }
        self.log_dict(self.step_metrics, batch_size=window.batches[0].batch_size)
        return loss

    def _task_losses(self, window: Window, loss: float) -> dict[str, float]:
        """The loss under its task's name, where all samples of the step have the same task."""
        tasks = {int(task) for found in exchange([_tasks(window)]) for task in found}
        registry = getattr(self.model, "tokens", None)
        if len(tasks) != 1 or registry is None:
            return {}
        names = ("none", *registry.task_names)
        return {f"loss/task/{names[tasks.pop()]}": loss}

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters(remove_duplicate=False)


def reseed(seed: int, step: int, rank: int = 0) -> None:
    """Seed Python, NumPy and torch with (seed, step, rank)."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed((int(words[0]) << 32) | int(words[1]))


def _entries(report: StepReport) -> list[tuple[str, float, float, float]]:
    """(name, sum, count, weight) of every loss and every auxiliary scalar, as plain numbers."""
    sums = {name: float(loss.detach()) for name, loss in report.losses.items()}
    losses = [(name, total, float(report.counts[name]), report.weights[name]) for name, total in sums.items()]
    return losses + [(f"aux/{name}", float(x.detach()), 1.0, 1.0) for name, x in report.aux.items()]


def _tasks(window: Window) -> list[int]:
    """Task indices that occur in a window."""
    return sorted({int(task) for batch in window.batches for task in batch.task.unique()})
