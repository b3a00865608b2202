"""Dense supervision of a vision tower: what lies under every patch."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify import losses
from mmunify.errors import DataError
from mmunify.heads._features import supervised_tokens
from mmunify.parts import Head, Unembed
from mmunify.registry import HEADS
from mmunify.types import Batch, Features, HeadOutput, Hidden, OutputBatch, SlotSpec

COUNTS = {"class": "num_classes", "color": "num_colors"}


@HEADS.register("patch_labels")
class PatchLabelHead(Head):
    """Objectness, class, colour and box of the object under each patch, by one linear layer on the tower's tokens.

    It needs no backbone. One linear layer on purpose: what it can read, an adapter can read too. Boxes are absolute
    (0..1 of the picture), so that the tower has to know where a patch is.

    Args:
        target_dim: width E of the tower (given by the composer).
        num_classes: of the objects.
        num_colors: of the objects.
        features: encoder node whose tokens are supervised.
        box_weight: of the boxes' loss.
        beta: where the boxes' smooth L1 turns from quadratic to linear, in 0..1 of the picture.
        num_bins: when above 0, every coordinate is also classified into the bins 0, 1/num_bins, ..., 1. A backbone
            writes coordinates as one token per bin, and reads them more easily from features made for that.
    """

    needs_backbone = False

    def __init__(
        self,
        target_dim: int,
        num_classes: int = 10,
        num_colors: int = 6,
        features: str = "image",
        box_weight: float = 5.0,
        beta: float = 0.05,
        num_bins: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.box_weight, self.beta = features, box_weight, beta
        self.num_bins = num_bins
        self.sizes = {"objectness": 1, "class": num_classes, "color": num_colors, "box": 4}
        self.sizes |= {"bins": 4 * (num_bins + 1)} if num_bins else {}
        self.readout = nn.Linear(target_dim, sum(self.sizes.values()))

    @property
    def spec(self) -> SlotSpec | None:
        """It opens no slot."""
        return None

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """Tokens (M, N, E) and targets (K, N, 7) = objectness, class, colour, x0, y0, x1, y1 -> four losses.

        Raises:
            DataError: the node is missing, or targets that don't fit the tokens.
        """
        outputs = self.items(batch)
        tokens = supervised_tokens(features, outputs, str(self.features), "patch_labels")
        said = dict(zip(self.sizes, self.readout(tokens).split(list(self.sizes.values()), dim=-1), strict=True))
        predictions = _predictions(said)
        target = _target(outputs, tokens)
        said = {name: logits[: len(target)] for name, logits in said.items()}  # prompts come without targets
        inside = target[..., 0] > 0.5
        count = inside.sum()
        sums = {
            "objectness": losses.bce(said["objectness"].flatten()[:, None], target[..., 0].flatten()[:, None]),
            "class": self._labels("class", said["class"][inside], target[..., 1][inside]),
            "color": self._labels("color", said["color"][inside], target[..., 2][inside]),
            "box": self.box_weight * losses.smooth_l1(said["box"][inside], target[..., 3:][inside], self.beta),
        }
        if self.num_bins:
            sums["bins"] = self._bins(said["bins"][inside], target[..., 3:][inside])
        counts = {name: count if name != "objectness" else count.new_tensor(inside.numel()) for name in sums}
        return HeadOutput(losses=sums, counts=counts, predictions=predictions)

    def _bins(self, logits: Float[Tensor, "n bins"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, ""]:
        """Cross-entropy of a box's coordinates, their mean summed over the boxes."""
        wanted = (boxes * self.num_bins).round().long().clamp(0, self.num_bins)
        each = logits.unflatten(-1, (4, self.num_bins + 1)).flatten(0, 1)
        return F.cross_entropy(each, wanted.flatten(), reduction="sum") / 4

    def _labels(self, name: str, logits: Float[Tensor, "n X"], target: Float[Tensor, "n"]) -> Float[Tensor, ""]:
        """Cross-entropy, summed; the labels come as numbers beside the boxes."""
        size = self.sizes[name]
        wrong = (target < 0) | (target >= size)
        if bool(wrong.any()):
            value = target[wrong][0].item()
            raise DataError(f"patch_labels: {name} {value:g} is outside 0..{size - 1}; raise {COUNTS[name]}")
        return F.cross_entropy(logits, target.long(), reduction="sum")


def _target(outputs: OutputBatch | None, tokens: Float[Tensor, "M N E"]) -> Float[Tensor, "K N 7"]:
    given = None if outputs is None else outputs.target
    if given is None:
        return tokens.new_zeros(0, tokens.shape[1], 7)
    target = torch.stack(list(given)) if isinstance(given, list) else given
    if target.shape != (*tokens.shape[:2], 7):
        shapes = f"{tuple(target.shape)} for tokens of shape {tuple(tokens.shape)}"
        raise DataError(f"patch_labels: targets of shape {shapes}; expected (items, tokens, 7)")
    return target.to(tokens.dtype)


def _predictions(said: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the head believes: probability of an object, most likely class and colour, box."""
    return {
        "objectness": said["objectness"][..., 0].sigmoid(),
        "class": said["class"].argmax(dim=-1),
        "color": said["color"].argmax(dim=-1),
        "box": said["box"],
    }
