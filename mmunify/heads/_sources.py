"""Features of the pictures that a head's items start from, for connectors that read them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.heads._features import Connector, pool_tokens
from mmunify.heads._token_head import TokenSlot
from mmunify.parts import Head, Slot
from mmunify.types import Batch, Features

MAX_GAIN = 100.0
"""Of a change to the squared error: an edit that changes nothing doesn't count without bounds."""
TINY = 1e-12
"""Of the same, where the target's features are zero."""


@dataclass(frozen=True, slots=True)
class EditGain:
    """Small changes count beside new pictures.

    The squared error of an item that starts from a picture is multiplied by (target² / change²)^edit_gain, where
    the change is that from the source's features: with 0 another colour hardly counts, with 1 its error counts by its
    share of the change, in the middle between both with 0.5.

    Attributes:
        edit_gain: 0 or more.

    Raises:
        UserError: less.
    """

    edit_gain: float = 0.0

    def __post_init__(self) -> None:
        if self.edit_gain < 0:
            raise UserError(f"edit_gain of a head is at least 0, which changes nothing; got {self.edit_gain}")

    def check(self, head: Head, loss: str) -> None:
        """Refuse a gain that would do nothing.

        Raises:
            UserError: the head's connector doesn't read what edits start from, or its loss is no squared error.
        """
        if self.edit_gain and (loss != "mse" or not _reads_sources(head)):
            raise UserError(
                f"edit_gain={self.edit_gain} scales the loss mse of a head whose connector reads the picture that an "
                f"edit starts from (over_source); this head has the loss {loss}, or another connector: change "
                "them, or leave edit_gain out"
            )

    def __call__(self, wanted: Float[Tensor, "K Q E"], source: Features | None) -> Float[Tensor, "K 1 1"]:
        """The factor of every item; 1 where there is no source."""
        ones = wanted.new_ones(len(wanted), 1, 1)
        if source is None or not self.edit_gain:
            return ones
        change, whole = (each.square().mean((1, 2), keepdim=True) for each in (wanted - source.tokens, wanted))
        factors = (whole / change.clamp(min=whole / MAX_GAIN).clamp(min=TINY)) ** self.edit_gain
        given = ones.bool() if source.mask is None else source.mask[:, :1, None]
        return torch.where(given, factors.to(ones.dtype), ones)


def output_sources(head: Head, batch: Batch, features: Mapping[str, Features]) -> Features | None:
    """Of the K items of a training step: the pictures that they start from; None = there are none, or nobody asks.

    Args:
        head: whose target encoder's features are wanted.
        batch: of the step.
        features: of its media, by encoder node.
    """
    outputs, seen = head.items(batch), features.get(head.target or "")
    if not _reads_sources(head) or seen is None or outputs is None:
        return None
    pairs = outputs.condition or (None,) * len(outputs.document)
    chosen = [-1 if pair is None or pair[0] != head.eye else pair[1] for pair in pairs]
    index = torch.tensor(chosen, device=seen.tokens.device)
    if not bool((index >= 0).any()):
        return None
    return _fitted(head, Features(tokens=seen.tokens[index.clamp(min=0)], grid=seen.grid), index >= 0)


def slot_sources(head: Head, slot: Slot) -> Features | None:
    """Of the items of an open slot: the latest picture of each row."""
    if not _reads_sources(head) or head.target is None or not isinstance(slot, TokenSlot):
        return None
    seen, given = slot.source(head.target)
    return None if seen is None else _fitted(head, seen, given)


def _reads_sources(head: Head) -> bool:
    connector = getattr(head, "connector", None)
    return isinstance(connector, Connector) and "source" in connector.adapter.needs


def _fitted(head: Head, seen: Features, given: Bool[Tensor, "K"]) -> Features:
    assert head.output_shape is not None
    num = head.output_shape[0]
    return Features(tokens=pool_tokens(seen, num, head.pool), mask=given[:, None].expand(-1, num))
