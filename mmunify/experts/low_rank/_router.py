"""What a gate reads, and the weights that come of it."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import current_tokens
from mmunify.experts.low_rank._gates import Gate, gate_logits

GateInput = Literal["layer", "task", "modality", "hidden"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """How the experts of one layer are weighed.

    Attributes:
        num_experts: X.
        weigh: logits -> weights; None = every task has an expert of its own (task i: expert i), and nothing is learned.
        reads: "layer" = the layer's input; "task", "modality" = a learned row per id; "hidden" = the last hidden
            states of a pass without low-rank terms (X-LoRA, arXiv 2402.07148).
        ids: rows, for "task" and "modality".
        hidden_dim: width, for "hidden".
        jitter: what the gate reads is multiplied by noise in 1 - jitter .. 1 + jitter, while training.
        float32: logits in float32 even under autocast.
    """

    num_experts: int
    weigh: Gate | None
    reads: GateInput = "layer"
    ids: int = 64
    hidden_dim: int = 0
    jitter: int | float = 0.0
    float32: bool = True

    def width(self, in_dim: int) -> int:
        """Columns of the gate's matrix for a layer that reads `in_dim` numbers; 0 = it has no matrix."""
        if self.weigh is None:
            return 0
        return {"layer": in_dim, "task": self.ids, "modality": self.ids, "hidden": self.hidden_dim}[self.reads]

    def __call__(
        self, x: Float[Tensor, "*rows d_in"], gate: Float[Tensor, "X width"] | None, training: bool, layer: str
    ) -> tuple[Float[Tensor, "*rows X"], Float[Tensor, "*rows X"] | None]:
        """Weights and logits of every token.

        Args:
            x: the layer's input.
            gate: the layer's matrix.
            training: whether there is jitter.
            layer: name of the layer, for messages.

        Raises:
            UserError: the gate reads what the token context doesn't have, or an id without a row.
        """
        if gate is None or self.weigh is None:
            ids = token_ids("task", x, self.num_experts, layer)
            experts = torch.arange(self.num_experts, device=ids.device)
            return (ids.unsqueeze(-1) == experts).to(torch.promote_types(x.dtype, torch.float32)), None
        logits = self._logits(x, gate, training, layer)
        return self.weigh(logits), logits

    def _logits(self, x: Tensor, gate: Tensor, training: bool, layer: str) -> Tensor:
        if self.reads in ("task", "modality"):
            return F.embedding(token_ids(self.reads, x, self.ids, layer), gate.T)
        read = x if self.reads == "layer" else _known("hidden", x, layer).unflatten(0, x.shape[:-1])
        if self.jitter and training:
            read = read * torch.empty_like(read).uniform_(1 - self.jitter, 1 + self.jitter)
        return gate_logits(read, gate) if self.float32 else F.linear(read, gate.to(read.dtype))


def token_ids(field: str, x: Float[Tensor, "*rows d_in"], rows: int, layer: str) -> Int[Tensor, "*rows"]:
    """The task or modality of every token of `x`.

    Raises:
        UserError: they aren't known, or an id is not in 0..rows - 1 (looked at on the CPU alone: elsewhere it would
            have to wait for the device, which refuses the id by itself).
    """
    ids = _known(field, x, layer).view(x.shape[:-1])
    if not torch.compiler.is_compiling() and ids.device.type == "cpu" and ids.numel() and int(ids.max()) >= rows:
        raise UserError(f"{layer}: {field} id {int(ids.max())} has no row, there are {rows} (0..{rows - 1})")
    return ids


def _known(field: str, x: Tensor, layer: str) -> Tensor:
    tokens = current_tokens()
    values = None if tokens is None else tokens.flat(field, x.shape[:-1].numel())
    if values is None:
        raise UserError(
            f"{layer}: its gate reads {field} of every token, but the token context has none; run the model inside "
            f"use_tokens(TokenContext({field}=...))"
        )
    return values
