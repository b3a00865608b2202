"""Boxes as numbers: the state at `<at>` is decoded to four coordinates."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify import losses
from mmunify.errors import DataError
from mmunify.heads._token_head import Reads, read_slots, require_hidden, signal_slot, token_slot
from mmunify.layers.target_frames import RegionTarget
from mmunify.parts import Encoder, Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, Preprocess, SlotSpec


@HEADS.register("boxes")
class BoxHead(Head):
    """NExT-Chat's pix2emb boxes (https://arxiv.org/abs/2311.04498), beside boxes that are written as text.

    Linear, ReLU, linear, sigmoid give centre and size; L1 and generalised IoU compare corners.

    Args:
        in_dim: backbone width D (given by the composer).
        features: encoder node in the frame of whose pictures the coordinates are; the one that the backbone sees.
        token: the string that asks for a box.
        reads: the state "at" the token, or the one "before" it.
        l1_weight: of the mean absolute difference of the four corners.
        giou_weight: of one minus the generalised IoU.
    """

    makes = "box"

    def __init__(
        self,
        in_dim: int,
        features: str = "image",
        token: str = "<at>",
        reads: Literal["at", "before"] = "at",
        l1_weight: float = 2.0,
        giou_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.features = features
        self.reads: Reads = reads
        self.weights = {"l1": l1_weight, "giou": giou_weight}
        self.decode = nn.Sequential(nn.Linear(in_dim, in_dim // 2), nn.ReLU(), nn.Linear(in_dim // 2, 4))
        self._spec = signal_slot([token], [token])

    @property
    def spec(self) -> SlotSpec | None:
        """One learned string."""
        return self._spec

    def target_preprocess(self, encoder: Encoder) -> Preprocess | None:
        """Boxes in the frame of the encoder's picture."""
        return RegionTarget(kind="box", frame=encoder.preprocess)

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the tokens (K, 1, D) -> corners (K, 4), compared with the targets'.

        Raises:
            DataError: items without a box to learn from.
        """
        boxes = self._boxes(read_slots(require_hidden(hidden, self).last, batch, self, 1, self.reads))
        outputs = self.items(batch)
        target = boxes[:0] if outputs is None else outputs.target
        if not isinstance(target, Tensor) or target.shape != boxes.shape:
            raise DataError(f"{len(boxes)} outputs of node {self.node!r} have no boxes (K, 4) to learn from")
        wanted = target.to(boxes.dtype)
        sums = {"l1": losses.l1(boxes, wanted), "giou": losses.giou(boxes, wanted)}
        sums = {name: self.weights[name] * loss for name, loss in sums.items()}
        count = boxes.new_tensor(len(boxes))
        return HeadOutput(losses=sums, counts=dict.fromkeys(sums, count), predictions={"boxes": boxes})

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K 4"]:
        """Corners of one box per row, in 0..1 of the encoder's picture."""
        return self._boxes(token_slot(slot).written(1, self.reads))

    def _boxes(self, states: Float[Tensor, "K 1 D"]) -> Float[Tensor, "K 4"]:
        centre, size = self.decode(states[:, 0]).float().sigmoid().chunk(2, dim=1)
        return torch.cat([centre - size / 2, centre + size / 2], dim=1)
