"""Do experts specialise? What the gates of a stage did, logged, kept and drawn."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from mmunify.experts.low_rank._heat_map import draw_heat_map
from mmunify.experts.low_rank._routing import gated_layers
from mmunify.experts.low_rank._telemetry import GateTelemetry

LOG_EVERY = 50
"""Steps between two logged means; every mean is over all steps of the stage so far."""


class GateCallback(pl.Callback):
    """Counts the gate weights of every step; writes `<stage>_gates.png` (experts x tasks) and `<stage>_gates.json`.

    A model without gates costs nothing and gets no files.

    Args:
        folder: of the run.
        stage: name of the stage.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder, self.stage = folder, stage
        self._telemetry: GateTelemetry | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for gates."""
        model: Any = pl_module.model
        if gated_layers(model):
            self._telemetry = GateTelemetry(["none", *model.tokens.task_names])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step's last forward; log the means over layers now and then."""
        if self._telemetry is None:
            return
        model: Any = pl_module.model
        self._telemetry.update(model)
        if (batch_idx + 1) % LOG_EVERY == 0:
            scalars = self._telemetry.figures().scalars()
            pl_module.log_dict({name: value for name, value in scalars.items() if name.count("/") == 1}, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        if self._telemetry is None:
            return
        figures = self._telemetry.figures()  # of all ranks, so every one of them asks
        if trainer.is_global_zero and figures.layers:
            draw_heat_map(figures, self.folder / f"{self.stage}_gates.png")
            (self.folder / f"{self.stage}_gates.json").write_text(json.dumps(figures.plain()))
