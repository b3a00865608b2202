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


def sigmoid(logits: Float[Tensor, "*rows X"], renormalize: bool = False) -> Float[Tensor, "*rows X"]:
    """Every expert is weighed for itself; with `renormalize` the weights sum to one (Poly, arXiv 2202.13914)."""
    weights = logits.sigmoid()
    return weights / weights.sum(-1, keepdim=True) if renormalize else weights


def top_k(logits: Float[Tensor, "*rows X"], k: int, renormalize: bool = True) -> Float[Tensor, "*rows X"]:
    """The k largest weights of a softmax, the others zero (MixLoRA, arXiv 2404.15159; MoLA, arXiv 2402.08562).

    Args:
        logits: of every expert.
        k: experts per token; with k = X this is the softmax.
        renormalize: whether the kept weights sum to one.
    """
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(k, dim=-1).indices, True)
    return _only(kept, logits, renormalize)


def top_p(logits: Float[Tensor, "*rows X"], p: int | float, renormalize: bool = False) -> Float[Tensor, "*rows X"]:
    """The fewest largest weights of a softmax whose sum exceeds p, the others zero (MixLoRA's dynamic router).

    The expert that crosses p is kept. Weights are as the softmax gives them, unless `renormalize`.
    """
    ordered, order = logits.detach().softmax(-1).sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before <= p)
    return _only(kept, logits, renormalize)


def make_gate(
    name: str,
    num_experts: int,
    k: int,
    temperature: int | float,
    renormalize: bool | None,
    p: int | float = 0.8,
) -> Gate:
    """The gate of that name.

    Args:
        name: "softmax", "sigmoid", "top_k", "top_p" or "switch" (the largest weight of a softmax as it is, Fedus et
            al., arXiv 2101.03961; no expert has a capacity, since all tokens pass through the same two products).
        num_experts: of the layer, X.
        k: experts per token, for "top_k".
        temperature: divides the logits.
        renormalize: whether weights sum to one; None = as published: for "top_k" and nothing else.
        p: sum of weights, for "top_p".

    Raises:
        UserError: no such gate, k outside 1..X, p outside (0, 1], or a temperature that is not positive.
    """
    gates: dict[str, Gate] = {
        "softmax": softmax,
        "sigmoid": partial(sigmoid, renormalize=bool(renormalize)),
        "top_k": partial(top_k, k=k, renormalize=renormalize is not False),
        "top_p": partial(top_p, p=p, renormalize=bool(renormalize)),
        "switch": partial(top_k, k=1, renormalize=False),
    }
    if name not in gates:
        raise UserError(f"no gate named {name!r}{did_you_mean(name, list(gates))} Known: {', '.join(gates)}")
    if name == "top_k" and not 1 <= k <= num_experts:
        raise UserError(f"top_k must be in 1..{num_experts} for {num_experts} experts, got {k}")
    if name == "top_p" and not 0 < p <= 1:
        raise UserError(f"top_p must be in (0, 1], got {p}")
    if temperature <= 0:
        raise UserError(f"the temperature of a gate must be above 0, got {temperature}")
    return gates[name] if temperature == 1 else partial(_tempered, gate=gates[name], temperature=temperature)


def _only(kept: Tensor, logits: Tensor, renormalize: bool) -> Tensor:
    if renormalize:
        return logits.masked_fill(~kept, float("-inf")).softmax(-1)
    return logits.softmax(-1).masked_fill(~kept, 0.0)


def _tempered(logits: Tensor, gate: Gate, temperature: int | float) -> Tensor:
    return gate(logits / temperature)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
