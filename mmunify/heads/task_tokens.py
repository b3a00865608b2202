"""Outputs as task calls: no slot, no parameter; the text head writes `<task>...</task>` and an expert answers it."""

from collections.abc import Mapping

from torch import Tensor

from mmunify.parts import Head, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, SlotSpec


@HEADS.register("task_tokens")
class TaskTokenHead(Head):
    """The UnifiedMLLM way (https://arxiv.org/abs/2408.02503): an output is requested in words between task tokens.

    It has no loss of its own: the call is text. Swapping this head for `queries` swaps *call an expert* for
    *predict features and de-tokenize them*.
    """

    @property
    def spec(self) -> SlotSpec | None:
        """The output's call is written as text."""
        return SlotSpec(as_text=True)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """None: it has no loss."""
        return {}

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """Nothing: the text head learns the (B, T) labels of the call."""
        return HeadOutput()
