"""What gates leave behind after a forward: losses for training, weights for telemetry; overwritten, never appended."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import Balance
from mmunify.experts.low_rank._context import TokenContext, current_tokens, is_recomputing
from mmunify.experts.low_rank._inject import clean_name


class GatedLayer(nn.Module):
    """A layer with a gate: it remembers the weights of its last forward.

    Args:
        balance: loss of the weights; None = no loss.
        balance_weight: multiplies the loss.
    """

    def __init__(self, balance: Balance | None = None, balance_weight: int | float = 0.0) -> None:
        super().__init__()
        self.balance, self.balance_weight = (balance, balance_weight) if balance_weight else (None, 0.0)
        self._weights: Tensor | None = None
        self._tokens: TokenContext | None = None
        self._is_new = False

    def record(self, weights: Float[Tensor, "*rows X"]) -> None:
        """Remember the weights of this forward; with their graph only if a loss will need it."""
        if torch.compiler.is_compiling():  # dynamo cannot read a ContextVar: `settle` does it
            self._tokens = None
        elif is_recomputing():
            return
        else:
            self._tokens = current_tokens() or TokenContext()
        self._weights, self._is_new = weights if self.balance is not None else weights.detach(), True

    def settle(self, name: str) -> Float[Tensor, ""] | None:
        """The weighted loss of the last forward, once; the graph is let go, the weights stay for `mean_weights`."""
        if self._weights is None or not self._is_new:
            return None
        weights, self._weights, self._is_new = self._weights, self._weights.detach(), False
        self._tokens = self._tokens or current_tokens()
        if self.balance is None:
            return None
        try:
            return self.balance_weight * self.balance(weights, self._known_tokens())
        except UserError as error:
            raise UserError(f"{name}: {error}") from error

    def mean_weights(self) -> Float[Tensor, "X"] | None:
        """Mean weight of every expert over the valid tokens of the last forward."""
        if self._weights is None:
            return None
        flat = self._weights.detach().flatten(0, -2)
        valid = self._known_tokens().flat("valid", len(flat))
        share = flat.new_ones(len(flat)) if valid is None else valid.to(flat)
        return share @ flat / share.sum().clamp(min=1)

    def _known_tokens(self) -> TokenContext:
        if self._tokens is None:
            raise UserError(
                "a compiled layer keeps no token context: call collect_aux inside the use_tokens(...) block"
            )
        return self._tokens

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without memory: tensors inside a graph can't be copied.
        return {**self.__dict__, "_weights": None, "_tokens": None, "_is_new": False}


def collect_aux(module: nn.Module) -> dict[str, Tensor]:
    """Auxiliary losses of the last forward of all gated layers inside `module`, weighted and summed over layers.

    To be called once per forward; for compiled models inside the same `use_tokens` block.

    Returns:
        {"balance": scalar}, or {} if no layer has a loss.

    Raises:
        UserError: the context is unknown, or describes other tokens than a layer with a loss saw.
    """
    losses = [layer.settle(name) for name, layer in _gated_layers(module)]
    given = [loss for loss in losses if loss is not None]
    return {"balance": torch.stack(given).sum()} if given else {}


def gate_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Mean weight per expert [X] of the last forward, by the name of the layer that is gated."""
    means = {name: layer.mean_weights() for name, layer in _gated_layers(module)}
    return {name: mean for name, mean in means.items() if mean is not None}


def _gated_layers(module: nn.Module) -> list[tuple[str, GatedLayer]]:
    return [
        (clean_name(name).removesuffix(".low_rank"), child)
        for name, child in module.named_modules()
        if isinstance(child, GatedLayer)
    ]
