"""Callbacks of every stage: the progress bar, resumable checkpoints, and quiet surroundings."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mmunify.checkpoint.shards import WRITE_ERRORS
from mmunify.checkpoint.swap import aside, put_in_place, remove
from mmunify.errors import TrainingError


class ProgressCallback(pl.Callback):
    """A progress bar with the loss and the speed, on the main process.

    Args:
        title: in front of the bar.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Any = None
        self._task: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where the run stands."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if not trainer.is_global_zero:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        )
        steps: Any = pl_module.stage.steps  # type: ignore[union-attr]
        done = trainer.fit_loop.batch_idx + 1
        self._task = self._bar.add_task(self.title, total=steps, completed=done, note="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by one."""
        if self._bar is not None:
            metrics: Any = pl_module.step_metrics
            self._bar.update(self._task, completed=batch_idx + 1, note=f"loss {metrics['loss']:.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message stands below it."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class CheckpointCallback(pl.Callback):
    """Saves the state of a stage every few steps, written aside and then renamed; the newest one is kept.

    Args:
        path: of the checkpoint.
        every: steps between two.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time.

        Raises:
            TrainingError: the checkpoint can't be written (a full disk); the one before is as it was.
        """
        if (batch_idx + 1) % self.every:
            return
        try:
            trainer.save_checkpoint(aside(self.path))
        except WRITE_ERRORS as error:
            if trainer.is_global_zero:
                remove(aside(self.path))
            kept = "; the one before is as it was, --resume goes on from it" if self.path.exists() else ""
            raise TrainingError(f"no checkpoint could be written to {self.path} ({error}){kept}") from error
        if trainer.is_global_zero:
            put_in_place(self.path)
        trainer.strategy.barrier("checkpoint")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's banners and hints down; its errors and everybody else's messages come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning_utilities")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
