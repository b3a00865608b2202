"""Features as targets: pooled to a number of tokens, compared with a named distance, made by a connector."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify import losses
from mmunify.errors import DataError, RecipeError, UserError
from mmunify.faults import Fault, unknown
from mmunify.layers.projector import projector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Features, Layout, OutputBatch

Distance = Callable[[Tensor, Tensor], Tensor]


def _unit_mse(prediction: Float[Tensor, "*items E"], target: Float[Tensor, "*items E"]) -> Float[Tensor, ""]:
    return losses.feature_mse(prediction, F.normalize(target, dim=-1))


DISTANCES: Mapping[str, Distance] = {
    "mse": losses.feature_mse,
    "cosine": losses.cosine,
    "euclidean": losses.euclidean,
    "unit_mse": _unit_mse,
}
"""By name: sums over tokens of the mean square, of one minus the cosine, of the length, and of the mean square to
targets of unit length."""


def require_distance(name: str, head: str) -> str:
    """The name, if it is one.

    Raises:
        UserError: unknown.
    """
    if name not in DISTANCES:
        raise UserError(f"loss of a {head} head: {unknown('distance', name, list(DISTANCES))}")
    return name


def distance(name: str, predicted: Float[Tensor, "K Q E"], wanted: Float[Tensor, "K Q E"]) -> Float[Tensor, ""]:
    """Sum over items of the mean over their tokens."""
    return DISTANCES[name](predicted, wanted) / max(1, predicted.shape[1])


def pool_tokens(features: Features, num_tokens: int, pool: str = "2d") -> Float[Tensor, "K Q E"]:
    """Average N tokens down to `num_tokens`; tokens that fit already pass unchanged.

    Args:
        features: of the target.
        num_tokens: Q.
        pool: "2d" = a square raster to a smaller one; "1d" = neighbours in raster order (SEED-X: 256 tokens to 64 are
            means of four cells of a row).

    Raises:
        UserError: the two can't be matched.
    """
    tokens = features.tokens
    if tokens.shape[1] == num_tokens:
        return tokens
    if pool == "1d" and not tokens.shape[1] % num_tokens:
        return tokens.unflatten(1, (num_tokens, -1)).mean(2)
    side = math.isqrt(num_tokens)
    if pool == "1d" or features.grid is None or side * side != num_tokens:
        wanted = "a divisor of it" if pool == "1d" else "a square number"
        raise UserError(
            f"{num_tokens} queries can't be matched with {tokens.shape[1]} target tokens (grid {features.grid}): "
            f"choose num_queries={tokens.shape[1]} or {wanted}"
        )
    raster = tokens.transpose(1, 2).unflatten(2, features.grid)
    return F.adaptive_avg_pool2d(raster, side).flatten(2).transpose(1, 2)


def wanted_tokens(
    features: Mapping[str, Features], predicted: Float[Tensor, "K Q E"], node: str, pool: str = "2d"
) -> Float[Tensor, "K Q E"]:
    """The target's features, as many as a head predicted.

    Args:
        features: of the step; the target's stand under "target".
        predicted: of K items.
        node: of the head.
        pool: see `pool_tokens`.

    Raises:
        DataError: items without a target picture.
    """
    target = features.get("target")
    if target is None and len(predicted):
        raise DataError(f"{len(predicted)} output items of node {node!r} have no target picture to learn from")
    return predicted if target is None else pool_tokens(target, predicted.shape[1], pool)


def supervised_tokens(
    features: Mapping[str, Features], outputs: OutputBatch | None, node: str, head: str
) -> Float[Tensor, "K N E"]:
    """A tower's tokens, one item per output; all of them where no output says which.

    Args:
        features: of the step, by encoder node.
        outputs: of the head that supervises them.
        node: encoder node of the tower.
        head: name of the head, for messages.

    Raises:
        DataError: the node is missing.
    """
    if node not in features:
        known = sorted(features) or "none"
        raise DataError(f"{head} reads encoder node {node!r}; the batch has {known}")
    tokens = features[node].tokens
    pairs = () if outputs is None else outputs.condition
    items = [pair[1] for pair in pairs if pair is not None and pair[0] == node]
    return tokens[torch.tensor(items, device=tokens.device)] if items else tokens


class Connector(nn.Module):
    """An adapter between hidden states and what a head predicts.

    States whose number is a square are a raster for it.

    Args:
        adapter: built.
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(
        self,
        states: Float[Tensor, "K n D"],
        mask: Bool[Tensor, "K n"] | None = None,
        source: Features | None = None,
    ) -> Float[Tensor, "K Q E"]:
        """States, True in `mask` where they are real; what stands for others in the answer is zero.

        `source`: of the pictures that the items start from.
        """
        side = math.isqrt(states.shape[1])
        grid = (side, side) if side * side == states.shape[1] else None
        embeds = self.adapter(
            Features(tokens=states, mask=mask, grid=grid, pooled=states.mean(1)), Context(source=source)
        )
        return embeds.tokens if embeds.mask is None else torch.where(embeds.mask[..., None], embeds.tokens, 0.0)


def num_made(connector: nn.Module, num_states: int) -> int:
    """Tokens that a connector makes of so many states."""
    if not isinstance(connector, Connector):
        return num_states
    side = math.isqrt(num_states)
    return connector.adapter.layout(
        Layout.of(num_states, (side, side) if side * side == num_states else None)
    ).num_slots


def made_width(node: Mapping[str, Any] | None, out_dim: int | None, wanted: int | None, head: str) -> int:
    """Width of what a connector makes: its node's `out_dim`, else that of the target's features.

    Args:
        node: of the connector.
        out_dim: width of the target's features.
        wanted: width that a loss compares with; None = there is none.
        head: for messages.

    Raises:
        UserError: the width is not known, or not that of the features that it is compared with.
    """
    width = (node or {}).get("out_dim", out_dim)
    if width is None:
        raise UserError(
            f"the width that a {head} head predicts is not known: name a target: encoder node, or give its connector "
            "an out_dim (`connector: {name: mlp, out_dim: 768}`)"
        )
    if wanted is not None and width != wanted:
        raise UserError(
            f"the connector of a {head} head makes features of width {width}, and its loss compares them with a "
            f"target's of width {wanted}; leave its out_dim out"
        )
    return width


def build_connector(node: Mapping[str, Any] | None, in_dim: int, width: int, target: str | None = None) -> nn.Module:
    """The connector of a head: an adapter's node, by default two linears with GELU between.

    Args:
        node: `{name: resampler, ...}`.
        in_dim: width of the states.
        width: of what is predicted.
        target: encoder node of the head.

    Raises:
        RecipeError: the node has faults.
        UserError: it reads the features of a source, and there is no target that says which.
    """
    if node is None:
        return projector(in_dim, in_dim, width)
    try:
        adapter = ADAPTERS.build(node, in_dim=in_dim, out_dim=width)
    except RecipeError as error:
        faults = [Fault(fault.path.replace(ADAPTERS.kind, "connector", 1), fault.message) for fault in error.faults]
        raise RecipeError(faults) from error
    if "source" in adapter.needs and target is None:
        raise UserError(
            f"the connector {node['name']!r} reads the features of the picture that an edit starts from, and its head "
            "has no target that says which encoder's; name it: `target: image`"
        )
    return Connector(adapter)


def connect(
    connector: nn.Module,
    states: Float[Tensor, "K n D"],
    mask: Bool[Tensor, "K n"] | None = None,
    source: Features | None = None,
) -> Float[Tensor, "K Q E"]:
    """Run a connector, whichever of its two forms it has."""
    if isinstance(connector, Connector):
        return connector(states, mask, source)
    made = connector(states)
    return made if mask is None else torch.where(mask[..., None], made, 0.0)
