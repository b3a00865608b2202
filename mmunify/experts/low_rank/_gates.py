"""Gates of a mixture: float32 logits from a layer's own input, and weights from logits."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.registry import did_you_mean

Gate = Callable[[Tensor], Tensor]
"""Logits [*rows X] -> weights [*rows X], both float32 or wider."""


class _WideLinear(torch.autograd.Function):
    """x G^T in float32 (or wider), which keeps x for the backward as it came.

    A cast before an ordinary product would keep a second, float32 copy of x: more than all else in the mixture.
    """

    @staticmethod
    def forward(x: Tensor, gate: Tensor) -> Tensor:
        """[*rows d_in], [X d_in] -> [*rows X]."""
        return x.to(_wide(x)) @ gate.to(_wide(x)).T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep the inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of both inputs, where they are wanted."""
        x, gate = ctx.saved_tensors
        with without_autocast(x):
            for_x = (grad @ gate.to(grad.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
            for_gate = None
            if ctx.needs_input_grad[1]:
                for_gate = (grad.flatten(0, -2).T @ x.flatten(0, -2).to(grad.dtype)).to(gate.dtype)
        return for_x, for_gate


def gate_logits(x: Float[Tensor, "*rows d_in"], gate: Float[Tensor, "X d_in"]) -> Float[Tensor, "*rows X"]:
    """Logits in float32 even under autocast: rounded ones flip experts."""
    with without_autocast(x):
        return _WideLinear.apply(x, gate)  # pyright: ignore[reportReturnType]


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Switches autocast off on the device of `x`, where there is such a thing (there is none on meta)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def softmax(logits: Float[Tensor, "*rows X"]) -> Float[Tensor, "*rows X"]:
    """Every expert takes part; the weights sum to one (LoRAMoE, arXiv 2312.09979)."""
    return logits.softmax(-1)


def sigmoid(logits: Float[Tensor, "*rows X"]) -> Float[Tensor, "*rows X"]:
    """Every expert is weighed for itself."""
    return logits.sigmoid()


def top_k(logits: Float[Tensor, "*rows X"], k: int, renormalize: bool = True) -> Float[Tensor, "*rows X"]:
    """The k largest weights of a softmax, the others zero (MixLoRA, arXiv 2404.15159; MoLA, arXiv 2402.08562).

    Args:
        logits: of every expert.
        k: experts per token; with k = X this is the softmax.
        renormalize: whether the kept weights sum to one.
    """
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(k, dim=-1).indices, True)
    if renormalize:
        return logits.masked_fill(~kept, float("-inf")).softmax(-1)
    return logits.softmax(-1).masked_fill(~kept, 0.0)


def make_gate(name: str, num_experts: int, k: int, temperature: int | float, renormalize: bool) -> Gate:
    """The gate of that name.

    Args:
        name: "softmax", "sigmoid" or "top_k".
        num_experts: of the layer, X.
        k: experts per token, for "top_k".
        temperature: divides the logits.
        renormalize: see `top_k`.

    Raises:
        UserError: no such gate, k outside 1..X, or a temperature that is not positive.
    """
    gates = {"softmax": softmax, "sigmoid": sigmoid, "top_k": partial(top_k, k=k, renormalize=renormalize)}
    if name not in gates:
        raise UserError(f"no gate named {name!r}{did_you_mean(name, list(gates))} Known: {', '.join(gates)}")
    if name == "top_k" and not 1 <= k <= num_experts:
        raise UserError(f"top_k must be in 1..{num_experts} for {num_experts} experts, got {k}")
    if temperature <= 0:
        raise UserError(f"the temperature of a gate must be above 0, got {temperature}")
    return gates[name] if temperature == 1 else partial(_tempered, gate=gates[name], temperature=temperature)


def _tempered(logits: Tensor, gate: Gate, temperature: int | float) -> Tensor:
    return gate(logits / temperature)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
