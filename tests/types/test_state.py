"""A step's report weighs sums by their counts."""

import torch

from mmunify.types import StepReport


def test_total_divides_sums_by_counts_and_adds_auxiliary_scalars():
    report = StepReport(
        losses={"text/ce": torch.tensor(6.0), "image/mse": torch.tensor(4.0)},
        counts={"text/ce": torch.tensor(3), "image/mse": torch.tensor(0)},
        weights={"text/ce": 1.0, "image/mse": 0.5},
        aux={"balance": torch.tensor(0.25)},
    )
    assert float(report.total) == 6 / 3 + 0.5 * 4 / 1 + 0.25
