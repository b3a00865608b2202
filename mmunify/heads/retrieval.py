"""Text that looks for pictures: the state at `[IMG0]` and a picture's features meet in one space."""

import math
from collections.abc import Collection, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify import losses
from mmunify.errors import DataError, UserError
from mmunify.heads._token_head import Reads, read_slots, require_hidden, signal_slot, token_slot
from mmunify.layers.gather import gather_rows
from mmunify.layers.pooling import masked_mean
from mmunify.parts import Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, SlotSpec

MAX_SCALE = 100.0  # CLIP's limit of the similarities' scale


@HEADS.register("retrieval")
class RetrievalHead(Head):
    """GILL's retrieval (https://arxiv.org/abs/2305.17216): contrastive both ways between text and picture.

    The loss compares the pairs of all processes with each other, so it is no sum over items: it depends on the batch.
    Beside `signal_tokens` of the same strings both heads read one slot, this one its first token.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the target encoder (given by the composer).
        token: the string.
        dim: width of the common space.
        target: encoder node that reads the pictures; its pooled vector is used, or else the mean of its tokens.
        reads: the state "at" the token, or the one "before" it.
        learned: whether the token carries text loss.
        temperature: at the start; it is learned.

    Raises:
        UserError: a temperature that is not above 0.
    """

    makes = "score"

    def __init__(
        self,
        in_dim: int,
        target_dim: int,
        token: str = "[IMG0]",
        dim: int = 256,
        target: str = "image",
        reads: Literal["at", "before"] = "at",
        learned: bool = True,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature of a retrieval head must be above 0, got {temperature}")
        self.target = target
        self.reads: Reads = reads
        self.project_text, self.project_picture = nn.Linear(in_dim, dim), nn.Linear(target_dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self._spec = signal_slot([token], [token] if learned else [])

    @property
    def spec(self) -> SlotSpec | None:
        """One string."""
        return self._spec

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the tokens (K, 1, D) and pictures (K, N, E) -> contrastive loss; "correct" counts the right ones.

        Raises:
            DataError: items without a target picture.
        """
        states = read_slots(require_hidden(hidden, self).last, batch, self, 1, self.reads)[:, 0]
        target = features.get("target")
        if len(states) and target is None:
            raise DataError(f"{len(states)} output items of node {self.node!r} have no target picture to learn from")
        texts = F.normalize(self.project_text(states), dim=-1)
        pictures = texts[:0] if target is None else self.embed_pictures(target)
        all_texts, first = gather_rows(texts)
        all_pictures, _ = gather_rows(pictures)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        loss = losses.contrastive(texts, pictures, scale, all_texts, all_pictures, first)
        return HeadOutput(
            losses={"contrastive": loss},
            counts={"contrastive": loss.new_tensor(len(texts))},
            predictions={"correct": _correct(texts, all_pictures, first)},
        )

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K C"]:
        """Unit vectors that look for pictures, see `search`."""
        return F.normalize(self.project_text(token_slot(slot).written(1, self.reads)[:, 0]), dim=-1)

    def embed_pictures(self, features: Features) -> Float[Tensor, "K C"]:
        """Unit vectors of pictures, rows of the table that `search` looks through."""
        pooled = masked_mean(features.tokens, features.mask) if features.pooled is None else features.pooled
        return F.normalize(self.project_picture(pooled), dim=-1)


def search(
    texts: Float[Tensor, "K C"], table: Float[Tensor, "P C"], num: int = 3, seen: Collection[int] = ()
) -> tuple[Int[Tensor, "K n"], Float[Tensor, "K n"]]:
    """Rows of the `num` most similar pictures, best first, and their cosines; those already `seen` are left out."""
    similarity = texts @ table.T
    similarity[:, sorted(seen)] = -torch.inf
    best = similarity.topk(min(num, table.shape[0] - len(set(seen))), dim=1)
    return best.indices, best.values


def _correct(texts: Float[Tensor, "K C"], pictures: Float[Tensor, "A C"], first: int) -> Int[Tensor, ""]:
    """How many texts are nearest to their own picture."""
    if not len(texts):
        return torch.zeros((), dtype=torch.long, device=texts.device)
    wanted = torch.arange(first, first + len(texts), device=texts.device)
    return ((texts @ pictures.T).argmax(1) == wanted).sum()
