"""A class read from the state of a token: retrieve or generate."""

from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.heads._token_head import Reads, read_slots, require_hidden, signal_slot, token_slot
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, SlotSpec


@HEADS.register("decision")
class DecisionHead(Head):
    """GILL's decision (https://arxiv.org/abs/2305.17216): dropout and a linear on the state at `[IMG0]`.

    The target of an output is the number of its class. It learns alone, with all else frozen, as in GILL.

    Args:
        in_dim: backbone width D (given by the composer).
        token: the string; beside `signal_tokens` of the same strings it reads their first one.
        classes: their names, in the order of their numbers.
        dropout: before the linear.
        reads: the state "at" the token, or the one "before" it.
        learned: whether the token carries text loss.

    Raises:
        UserError: less than two classes.
    """

    makes = "score"

    def __init__(
        self,
        in_dim: int,
        token: str = "[IMG0]",
        classes: Sequence[str] = ("generate", "retrieve"),
        dropout: float = 0.5,
        reads: Literal["at", "before"] = "at",
        learned: bool = True,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise UserError(f"a decision needs at least two classes, got {list(classes)}")
        self.classes = tuple(classes)
        self.reads: Reads = reads
        self.readout = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, len(classes)))
        self._spec = signal_slot([token], [token] if learned else [])

    @property
    def spec(self) -> SlotSpec | None:
        """One string."""
        return self._spec

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the tokens (K, 1, D) -> cross-entropy of their classes, summed.

        Raises:
            DataError: items without a class, or a number that is none.
        """
        states = read_slots(require_hidden(hidden, self).last, batch, self, 1, self.reads)[:, 0]
        logits = self.readout(states).float()
        outputs = self.items(batch)
        target = logits.new_zeros(0) if outputs is None else outputs.target
        if not isinstance(target, Tensor) or target.numel() != len(logits):
            raise DataError(f"{len(logits)} outputs of node {self.node!r} have no class to learn from")
        wanted = target.flatten().long()
        if bool(((wanted < 0) | (wanted >= len(self.classes))).any()):
            raise DataError(f"classes of node {self.node!r} are 0..{len(self.classes) - 1}; got {wanted.tolist()}")
        return HeadOutput(
            losses={"cross_entropy": F.cross_entropy(logits, wanted, reduction="sum")},
            counts={"cross_entropy": logits.new_tensor(len(logits))},
            predictions={"class": logits.argmax(-1)},
        )

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K X"]:
        """Probabilities of the classes."""
        return self.readout(token_slot(slot).written(1, self.reads)[:, 0]).softmax(-1)
