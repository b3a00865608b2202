"""Rows of all processes side by side, with gradients, for losses that compare items with each other."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def gather_rows(rows: Float[Tensor, "K E"]) -> tuple[Float[Tensor, "A E"], int]:
    """The rows of all processes in the order of their ranks, and the place of this process's first one.

    Processes may have different numbers of rows, none included. Gradients flow back to the process that a row comes
    from, so the sum of the processes' losses has the gradient that one process with all rows would get.
    """
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()) or group.get_world_size() == 1:
        return rows, 0
    from torch.distributed.nn.functional import all_gather

    counts = [rows.new_zeros(1, dtype=torch.long) for _ in range(group.get_world_size())]
    group.all_gather(counts, rows.new_full((1,), len(rows), dtype=torch.long))
    lengths = [int(count) for count in counts]
    padded = F.pad(rows, (0, 0, 0, max(lengths) - len(rows)))
    parts = [part[:length] for part, length in zip(all_gather(padded), lengths, strict=True)]
    return torch.cat(parts), sum(lengths[: group.get_rank()])
