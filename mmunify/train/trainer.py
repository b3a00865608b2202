"""One `lightning.Trainer` per stage, from the recipe's `trainer:`, and the loggers of a run."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from mmunify.errors import RecipeError
from mmunify.faults import Fault

_INSTEAD = {
    "max_steps": "stages.*.steps",
    "max_epochs": "stages.*.steps",
    "accumulate_grad_batches": "stages.*.accumulate",
    "gradient_clip_val": "stages.*.clip",
    "callbacks": "the callbacks argument of train",
    "logger": "nothing: CSV is always written, TensorBoard where it is installed",
}


def make_trainer(
    options: Mapping[str, Any], *, steps: int, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger], folder: Path
) -> pl.Trainer:
    """A trainer for one stage.

    Args:
        options: the recipe's `trainer:`.
        steps: optimiser steps.
        callbacks: in the order in which they run.
        loggers: of the stage.
        folder: of the run.

    Raises:
        RecipeError: an option that belongs to a stage, or that Lightning doesn't know.
    """
    wrong = [
        Fault(f"trainer.{key}", f"is not the trainer's; use {_INSTEAD[key]}") for key in _INSTEAD if key in options
    ]
    if wrong:
        raise RecipeError(wrong)
    arguments: dict[str, Any] = {"log_every_n_steps": 1, **options}
    try:
        return pl.Trainer(
            **arguments,
            max_steps=steps,
            max_epochs=1,
            callbacks=list(callbacks),
            logger=list(loggers),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except TypeError as error:
        raise RecipeError([Fault("trainer", f"{error}; it takes the arguments of lightning.Trainer")]) from error


def make_loggers(folder: Path, stage: str) -> list[Logger]:
    """CSV under `logs/<stage>`, always; TensorBoard where it is installed. A resumed stage logs under `<stage>-2`."""
    version, number = stage, 1
    while (folder / "logs" / version).exists():
        number += 1
        version = f"{stage}-{number}"
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version=version, flush_logs_every_n_steps=10)]
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=version))
    return loggers
