"""The Lightning module that runs any stage: losses as global sums over global counts, one optimiser step per window."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
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
from mmunify.train.cosine import LossOf, gradient_cosines
from mmunify.train.fsdp2 import Fsdp2Strategy
from mmunify.train.layers import LayerOptions
from mmunify.train.loader import Window, WindowLoader
from mmunify.train.optim import build_adamw, build_adamw_8bit, parameter_groups, rate_factor, set_rates
from mmunify.train.ranks import exchange, num_ranks
from mmunify.train.totals import StepTotals, Told, gather, tell, tell_counts
from mmunify.train.zero import clip_gradients, forget_gradients
from mmunify.types import Batch, StepReport

MakeLoader = Callable[[int, int, bool], WindowLoader]


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
        self._logged: set[str] = set()

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
        return build(groups, optim.betas, optim.eps)

    def on_fit_start(self) -> None:
        """Frozen dropout and normalisation stay in eval mode."""
        set_modes(self.model)

    def training_step(self, window: Window, batch_idx: int) -> Tensor:
        """One optimiser step over a window; returns the detached loss."""
        batches = [self._stamp(batch, batch_idx) for batch in window.batches]
        optimizer: Any = self.optimizers()
        factor = self._rate_factor(batch_idx)
        set_rates(optimizer, factor)
        optimizer.zero_grad()
        cosines = self._cosines(batches, batch_idx)
        reseed(self.seed, self.first_step + batch_idx, self.global_rank)
        totals = self._backward(batches)
        norm = clip_gradients(self.trainer.strategy, optimizer, self.stage.clip)
        loss = self._log(totals, window, norm, factor, cosines)
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
            totals = gather([self._tell(report, batches[0])])
            self.manual_backward(self._share(report, totals, 1))
            return totals
        counted = gather([self._count(batch) for batch in batches])
        told: list[Told] = []

        def share(batch: Batch, report: StepReport) -> Tensor:
            told.append(self._tell(report, batch))
            return self._share(report, counted, len(batches))

        self._backward_each(batches, share)
        return gather(told)

    def _backward_each(self, batches: list[Batch], loss_of: LossOf) -> None:
        """Add up the gradients of what `loss_of` makes of each batch, over batches and ranks."""
        for place, batch in enumerate(batches):
            report = self.model(batch)
            with self._sync(place == len(batches) - 1):
                self.manual_backward(loss_of(batch, report))

    def _count(self, batch: Batch) -> Told:
        """What the losses of a batch will be divided by; where parts can't tell, a forward pass does."""
        counts = self.model.counts(batch)  # type: ignore[operator]
        if counts is not None:
            return tell_counts(counts)
        with torch.no_grad():
            return self._tell(self.model(batch), batch)

    def _tell(self, report: StepReport, batch: Batch) -> Told:
        return tell(report, batch, self._tasks)

    @property
    def _tasks(self) -> tuple[str, ...]:
        """Names of the rows of the task table; none for a model without tokens."""
        registry = getattr(self.model, "tokens", None)
        return () if registry is None else ("none", *registry.task_names)

    def _cosines(self, batches: list[Batch], batch_idx: int) -> dict[str, float]:
        """How tasks' gradients lie to each other, every `gradient_cosine` steps; the step itself stays as it is."""
        every = self.stage.gradient_cosine
        if not every or batch_idx % every:
            return {}

        def backward(loss_of: LossOf) -> None:
            reseed(self.seed, self.first_step + batch_idx, self.global_rank)
            self._backward_each(batches, loss_of)

        return gradient_cosines(self.model, batches, self._tasks, backward)

    def _share(self, report: StepReport, totals: StepTotals, num_batches: int) -> Tensor:
        """This batch's part of the window's loss, on this rank."""
        scales = {name: self.trainer.world_size / max(1.0, count) for name, count in totals.counts.items()}
        terms = [report.weights[name] * scales[name] * loss for name, loss in report.losses.items()]
        terms += [value / num_batches for value in report.aux.values()]
        if not terms:
            raise TrainingError(f"stage {self.stage.name!r}: the model reports no loss; give a head a weight")
        return sum(terms)  # type: ignore[return-value]

    @contextmanager
    def _sync(self, last: bool) -> Iterator[None]:
        """Ranks exchange gradients in the last backward pass of a window alone."""
        strategy = self.trainer.strategy
        waits = isinstance(strategy, ParallelStrategy) and not last
        with strategy.block_backward_sync() if waits else nullcontext():  # type: ignore[attr-defined]
            yield

    def _drop(self, window: Window, loss: float, norm: float, optimizer: Any) -> None:
        """Leave a step out; give up after too many in a row.

        Raises:
            TrainingError: with the samples of the last step, over all ranks.
        """
        forget_gradients(self.trainer.strategy, optimizer)
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

    def _log(
        self, totals: StepTotals, window: Window, norm: float, factor: float, cosines: Mapping[str, float]
    ) -> float:
        """Log the step; returns its loss over all ranks."""
        loss = totals.loss
        self.curve.append(loss)
        valid = sum(int(batch.attention.valid.sum()) for batch in window.batches)
        places = sum(batch.attention.valid.numel() for batch in window.batches)
        self.step_metrics = {
            **totals.metrics(),
            **cosines,
            "lr": self.stage.optim.lr * factor,
            **{f"lr/{g['match']}": g["lr"] * factor for g in self.stage.optim.groups if g.get("lr")},
            "grad_norm": norm,
            "tokens": float(valid),
            "padding": 1 - valid / places if places else 0.0,
        }
        # Lightning repeats a value until it is logged again: what this step doesn't have (a task, a cosine) is nan.
        absent = dict.fromkeys(self._logged - self.step_metrics.keys(), math.nan)
        self._logged |= self.step_metrics.keys()
        self.log_dict({**self.step_metrics, **absent}, batch_size=window.batches[0].batch_size)
        return loss

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters(remove_duplicate=False)


def reseed(seed: int, step: int, rank: int = 0) -> None:
    """Seed Python, NumPy and torch with (seed, step, rank)."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.manual_seed((int(words[0]) << 32) | int(words[1]))
