"""One `lightning.Trainer` per stage, from the recipe's `trainer:`, and the loggers of a run."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from mmunify.errors import RecipeError
from mmunify.extras import require
from mmunify.faults import Fault, unknown
from mmunify.train.fsdp2 import AnyCheckpointIO, Fsdp2Strategy
from mmunify.train.layers import LayerOptions
from mmunify.train.sharding import Sharding
from mmunify.train.strategies import is_deepspeed, zero_stage
from mmunify.train.zero import ZeroStrategy
from mmunify.train.zero3 import Zero3Strategy

_INSTEAD = {
    "max_steps": "stages.*.steps",
    "max_epochs": "stages.*.steps",
    "accumulate_grad_batches": "stages.*.accumulate",
    "gradient_clip_val": "stages.*.clip",
    "callbacks": "the callbacks argument of train",
    "logger": "trainer.loggers",
}
_OWN = ("recompute", "compile", "loggers")


def make_trainer(
    options: Mapping[str, Any],
    *,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    folder: Path,
    steps: int = -1,
) -> pl.Trainer:
    """A trainer for one stage.

    Args:
        options: the recipe's `trainer:`.
        callbacks: in the order in which they run.
        loggers: of the stage.
        folder: of the run.
        steps: optimiser steps at most; -1 = as many as the loader has windows.

    Raises:
        RecipeError: an option that belongs to a stage, that Lightning doesn't know, or that this machine can't do.
        MissingExtraError: the strategy needs a package that is absent.
    """
    wrong = [
        Fault(f"trainer.{key}", f"is not the trainer's; use {_INSTEAD[key]}") for key in _INSTEAD if key in options
    ]
    if wrong:
        raise RecipeError(wrong)
    arguments: dict[str, Any] = {"log_every_n_steps": 1, **options, **_strategy(options.get("strategy", "auto"))}
    try:
        return pl.Trainer(
            **{key: value for key, value in arguments.items() if key not in _OWN},
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
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        message = f"this machine can't do it: {' '.join(str(error).split())}"
        raise RecipeError([Fault("trainer", message)]) from error


def layer_options(options: Mapping[str, Any]) -> LayerOptions:
    """What the recipe's `trainer:` wants done with every layer: `recompute: true`, `compile: true` or a backend.

    Raises:
        RecipeError: another kind of value, or a backend that torch.compile doesn't know.
    """
    import torch

    recompute, backend = options.get("recompute", False), options.get("compile", False)
    backend = str({True: "inductor", False: ""}.get(backend, backend))
    known = torch.compiler.list_backends(exclude_tags=())
    faults = []
    if not isinstance(recompute, bool):
        faults.append(Fault("trainer.recompute", f"wants true or false, got {recompute!r}"))
    if backend and backend not in known:
        faults.append(Fault("trainer.compile", unknown("backend", backend, known)))
    if faults:
        raise RecipeError(faults)
    return LayerOptions(recompute=recompute, compile=backend)


def sharding(strategy: Any) -> Sharding | None:
    """The recipe's `trainer.strategy` if it is FSDP2: `fsdp2`, or a node of that name with the fields of `Sharding`.

    Raises:
        RecipeError: fields that it doesn't have.
    """
    node = dict(strategy) if isinstance(strategy, Mapping) else {"name": strategy}
    if node.pop("name", None) != "fsdp2":
        return None
    if "wrap" in node:
        node["wrap"] = tuple(node["wrap"])
    try:
        return Sharding(**node)
    except TypeError as error:
        message = f"fsdp2 takes {', '.join(Sharding.__dataclass_fields__)}; got {', '.join(node)}"
        raise RecipeError([Fault("trainer.strategy", message)]) from error


def make_loggers(folder: Path, stage: str, names: Sequence[str] | None = None) -> list[Logger]:
    """Loggers of a stage; a resumed stage logs under `<stage>-2`.

    Args:
        folder: of the run; CSV goes to `logs/<stage>`.
        stage: its name.
        names: "csv", "tensorboard", "wandb"; None = CSV, and TensorBoard where it is installed.

    Raises:
        RecipeError: no such logger.
        MissingExtraError: its package is absent.
    """
    version, number = stage, 1
    while (folder / "logs" / version).exists():
        number += 1
        version = f"{stage}-{number}"
    has_tensorboard = find_spec("tensorboard") or find_spec("tensorboardX")
    chosen = [*(["csv"] if names is None else names), *(["tensorboard"] if names is None and has_tensorboard else [])]
    strange = [name for name in chosen if name not in _LOGGERS]
    if strange:
        raise RecipeError([Fault("trainer.loggers", unknown("logger", name, list(_LOGGERS))) for name in strange])
    return [_LOGGERS[name](folder, version) for name in chosen]


def _strategy(strategy: Any) -> dict[str, Any]:
    """Lightning's arguments for a strategy."""
    split = sharding(strategy)
    if split is not None:
        return {"strategy": Fsdp2Strategy(split)}
    if isinstance(strategy, Mapping):
        known = ["fsdp2"]
        raise RecipeError(
            [Fault("trainer.strategy.name", unknown("strategy with fields", str(strategy.get("name")), known))]
        )
    if is_deepspeed(strategy):
        require("deepspeed", f"strategy {strategy}")
        stage = zero_stage(strategy)
        return {"strategy": Zero3Strategy() if stage == 3 else ZeroStrategy(stage), "plugins": [AnyCheckpointIO()]}
    return {"plugins": [AnyCheckpointIO()]}


def _csv(folder: Path, version: str) -> Logger:
    return CSVLogger(folder, name="logs", version=version, flush_logs_every_n_steps=10)


def _tensorboard(folder: Path, version: str) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version=version)


def _wandb(folder: Path, version: str) -> Logger:
    require("wandb", "logger wandb")
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(name=f"{folder.name}/{version}", save_dir=folder, project="mmunify")


_LOGGERS: dict[str, Callable[[Path, str], Logger]] = {"csv": _csv, "tensorboard": _tensorboard, "wandb": _wandb}
