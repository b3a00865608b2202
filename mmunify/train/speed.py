"""How fast a stage runs, how long it waits for data, what memory it takes, and what share of the device it uses."""

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from mmunify.layers.shapes import shape_of
from mmunify.train.layers import backbone_layers
from mmunify.train.report import peak_memory

PEAK_FLOPS: Mapping[str, float] = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "A10": 125e12,
    "V100": 125e12,
}
"""Dense bfloat16 (V100: float16) operations per second by a part of the device's name, from the makers' data sheets."""


class SpeedCallback(pl.Callback):
    """Logs, for this process, per step: positions per second (padding not counted), seconds, seconds spent waiting for
    data, peak memory in MiB, and the share of the device's peak operations that the model's own products took."""

    def __init__(self) -> None:
        self._start, self._end = 0.0, 0.0
        self._per_token, self._peak = 0.0, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the operations per position; the wait for the first batch starts."""
        model: Any = pl_module.model
        self._per_token, self._peak = step_flops_per_token(model), peak_flops(pl_module.device)
        self._end = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what the step took."""
        now = time.perf_counter()
        seconds, waited = now - self._start, self._start - self._end
        metrics: Any = pl_module.step_metrics
        speed = metrics["tokens"] / seconds
        shown = {"tokens_per_second": speed, "seconds": seconds, "data_wait": waited}
        shown |= {f"memory/{device}": size for device, size in peak_memory().items()}
        if self._peak:
            shown["flops_utilisation"] = metrics["tokens"] / (seconds + waited) * self._per_token / self._peak
        pl_module.log_dict(shown, batch_size=1)
        self._end = time.perf_counter()


def peak_flops(device: torch.device) -> float | None:
    """Operations per second that a device can do at most; None = not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def step_flops_per_token(model: nn.Module) -> float:
    """Operations of a training step per position of the sequence: the matrices of the backbone's layers alone.

    Two per weight for the forward pass, two for the gradient of its input, and two more for its own if it learns.
    Attention scores, towers, tables and recomputation are not counted, so the share of the peak is a lower bound.
    """
    parameters = [(shape_of(p), p) for layer in backbone_layers(model) for p in layer.parameters()]
    return float(sum(shape.numel() * (6 if p.requires_grad else 4) for shape, p in parameters if len(shape) == 2))
