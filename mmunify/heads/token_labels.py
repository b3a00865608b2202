"""Dense supervision of a tower: labels for each of its tokens."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.heads._features import supervised_tokens
from mmunify.parts import Head, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, OutputBatch, SlotSpec

UNKNOWN = -1
"""A label that isn't learned: the token shows nothing that has one."""


@HEADS.register("token_labels")
class TokenLabelHead(Head):
    """Several labels per token, by one linear layer: what it can read, an adapter can read too. It needs no backbone.

    Args:
        target_dim: width E of the tower (given by the composer).
        labels: name of a label -> how many values it has, in the order of the targets' columns.
        features: encoder node whose tokens are supervised.

    Raises:
        UserError: no label, or one with fewer than two values.
    """

    needs_backbone = False

    def __init__(self, target_dim: int, labels: dict[str, int], features: str = "audio") -> None:
        super().__init__()
        if not labels or min(labels.values()) < 2:
            raise UserError(f"token_labels needs labels of two or more values each, got {labels}")
        self.features, self.sizes = features, dict(labels)
        self.readout = nn.Linear(target_dim, sum(labels.values()))

    @property
    def spec(self) -> SlotSpec | None:
        """It opens no slot."""
        return None

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """Tokens (M, N, E) and targets (K, N, labels), -1 where nothing is to be learned -> a cross-entropy per label.

        Raises:
            DataError: the node is missing, or targets that don't fit the tokens.
        """
        outputs = self.items(batch)
        tokens = supervised_tokens(features, outputs, str(self.features), "token_labels")
        said = dict(zip(self.sizes, self.readout(tokens).split(list(self.sizes.values()), dim=-1), strict=True))
        predictions = {name: logits.argmax(dim=-1) for name, logits in said.items()}
        target = self._target(outputs, tokens)
        sums, counts = {}, {}
        for (name, logits), wanted in zip(said.items(), target.unbind(-1), strict=True):
            self._check(name, wanted)
            known = wanted.flatten()
            shown = logits[: len(target)].flatten(0, 1)
            sums[name] = F.cross_entropy(shown, known, reduction="sum", ignore_index=UNKNOWN)
            counts[name] = (known != UNKNOWN).sum()
        return HeadOutput(losses=sums, counts=counts, predictions=predictions)

    def _target(self, outputs: OutputBatch | None, tokens: Float[Tensor, "M N E"]) -> Int[Tensor, "K N labels"]:
        """Targets as whole numbers; none for prompts."""
        given = None if outputs is None else outputs.target
        if given is None:
            return torch.zeros(0, tokens.shape[1], len(self.sizes), dtype=torch.long, device=tokens.device)
        target = torch.stack(list(given)) if isinstance(given, list) else given
        wanted = (*tokens.shape[:2], len(self.sizes))
        if target.shape != wanted:
            raise DataError(f"token_labels: targets of shape {tuple(target.shape)}; expected {wanted}")
        return target.long()

    def _check(self, name: str, wanted: Int[Tensor, "K N"]) -> None:
        wrong = wanted[(wanted < UNKNOWN) | (wanted >= self.sizes[name])]
        if wrong.numel():
            size = self.sizes[name]
            raise DataError(f"token_labels: {name} {int(wrong[0])} is outside 0..{size - 1}; raise labels.{name}")
