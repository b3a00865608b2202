"""What gates leave behind after a forward: losses for training, weights for telemetry; overwritten, never appended."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import Balance, counted
from mmunify.experts.low_rank._context import TokenContext, current_tokens, is_recomputing
from mmunify.experts.low_rank._inject import clean_name
from mmunify.experts.low_rank._router import Router


class GatedLayer(nn.Module):
    """A layer with a gate: it remembers the weights of its last forward.

    Args:
        router: how experts are weighed; None for a layer that weighs them its own way and calls `record`.
        losses: (weight, auxiliary loss) pairs; none = no loss.
        mask: the tokens that the losses count, see `counted`.
        title: name of the layer, for messages.
    """

    gate: nn.Parameter | None

    def __init__(
        self,
        router: Router | None = None,
        losses: Sequence[tuple[float, Balance]] = (),
        mask: str = "non_pad",
        title: str = "",
    ) -> None:
        super().__init__()
        self.router, self.losses, self.mask, self.title, self.off = router, tuple(losses), mask, title, False
        self._weights: Tensor | None = None
        self._logits: Tensor | None = None
        self._tokens: TokenContext | None = None
        self._is_new = False

    def add_gate(self, in_dim: int) -> None:
        """Give the layer, which reads `in_dim` numbers, the matrix that its router needs; without values."""
        assert self.router is not None
        width = self.router.width(in_dim)
        columns = nn.Parameter(torch.empty(self.router.num_experts, width)) if width else None
        self.register_parameter("gate", columns)

    def reset_gate(self) -> None:
        """The gate as a linear's weight."""
        if self.gate is not None:
            nn.init.kaiming_uniform_(self.gate, a=math.sqrt(5))

    def route(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows X"]:
        """Weight of every expert for every token, remembered for losses and telemetry."""
        assert self.router is not None
        weights, logits = self.router(x, self.gate, self.training, self.title)
        self.record(weights, logits)
        return weights

    def weigh(self, logits: Float[Tensor, "*rows X"]) -> Float[Tensor, "*rows X"]:
        """The same from logits that were made elsewhere."""
        assert self.router is not None and self.router.weigh is not None
        weights = self.router.weigh(logits)
        self.record(weights, logits)
        return weights

    def record(self, weights: Float[Tensor, "*rows X"], logits: Float[Tensor, "*rows X"] | None = None) -> None:
        """Remember the weights of this forward; with their graph only if a loss will need it."""
        if torch.compiler.is_compiling():  # the layer must not hold a context that later steps would replace
            self._tokens = None
        elif is_recomputing():
            return
        else:
            self._tokens = current_tokens() or TokenContext()
        self._weights, self._is_new = weights if self.losses else weights.detach(), True
        self._logits = logits if self.losses else None

    def settle(self, name: str) -> Float[Tensor, ""] | None:
        """The weighted loss of the last forward, once; the graph is let go, the weights stay for statistics."""
        if self._weights is None or not self._is_new:
            return None
        weights, self._weights, self._is_new = self._weights, self._weights.detach(), False
        logits, self._logits = self._logits, None
        self._tokens = self._tokens or current_tokens()
        try:
            terms = [weight * loss(weights, self._counted(), logits) for weight, loss in self.losses]
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        return torch.stack(terms).sum() if terms else None

    def last_weights(self) -> tuple[Float[Tensor, "n X"], TokenContext] | None:
        """Weights of the last forward, one row per token, and its tokens; None before the first one.

        Raises:
            UserError: the layer is compiled, and the tokens aren't installed.
        """
        return None if self._weights is None else (self._weights.detach().flatten(0, -2), self._known_tokens())

    def _counted(self) -> TokenContext:
        return counted(self._known_tokens(), self.mask)

    def mean_weights(self) -> Float[Tensor, "X"] | None:
        """Mean weight of every expert over the valid tokens of the last forward."""
        last = self.last_weights()
        if last is None:
            return None
        flat, tokens = last
        valid = tokens.flat("valid", len(flat))
        share = flat.new_ones(len(flat)) if valid is None else valid.to(flat)
        return share @ flat / share.sum().clamp(min=1)

    def _known_tokens(self) -> TokenContext:
        tokens = self._tokens or current_tokens()
        if tokens is None:
            raise UserError(
                "a compiled layer keeps no token context: call collect_aux inside the use_tokens(...) block"
            )
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without memory: tensors inside a graph can't be copied.
        return {**self.__dict__, "_weights": None, "_logits": None, "_tokens": None, "_is_new": False}


def collect_aux(module: nn.Module) -> dict[str, Tensor]:
    """Auxiliary losses of the last forward of all gated layers inside `module`, weighted and summed over layers.

    To be called once per forward; for compiled models inside the same `use_tokens` block.

    Returns:
        {"balance": scalar}, or {} if no layer has a loss.

    Raises:
        UserError: the context is unknown, or describes other tokens than a layer with a loss saw.
    """
    losses = [layer.settle(name) for name, layer in gated_layers(module)]
    given = [loss for loss in losses if loss is not None]
    return {"balance": torch.stack(given).sum()} if given else {}


def gate_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Mean weight per expert [X] of the last forward, by the name of the layer that is gated."""
    means = {name: layer.mean_weights() for name, layer in gated_layers(module)}
    return {name: mean for name, mean in means.items() if mean is not None}


def gated_layers(module: nn.Module) -> list[tuple[str, GatedLayer]]:
    """All gated layers inside `module`, by the name of the linear or block that each belongs to."""
    return [
        (clean_name(name).removesuffix(".low_rank"), child)
        for name, child in module.named_modules()
        if isinstance(child, GatedLayer)
    ]
