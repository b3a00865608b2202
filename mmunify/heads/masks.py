"""The state at `[SEG]` prompts a mask decoder over a separate grounding encoder."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify import losses
from mmunify.errors import DataError, RecipeError, UserError
from mmunify.faults import Fault, unknown
from mmunify.heads._token_head import (
    Reads,
    TokenSlot,
    last_positions,
    medium_items,
    read_ranges,
    read_slots,
    require_hidden,
    signal_slot,
    token_slot,
)
from mmunify.layers.mask_decoder import MaskDecoder
from mmunify.layers.rasters import split_frames, to_raster
from mmunify.layers.sam import SAMDecoder
from mmunify.layers.target_frames import RegionTarget
from mmunify.parts import Encoder, Head, Slot, Unembed
from mmunify.registry import HEADS
from mmunify.signature import argument_faults
from mmunify.types import Batch, Features, HeadOutput, Hidden, Preprocess, SlotSpec

DECODERS: Mapping[str, Any] = {"two_way": MaskDecoder, "sam": SAMDecoder}
PHRASE = ("<p>", "</p>")
SMOOTH = 1e-3  # LISA's dice, with probabilities scaled by 1/1000 and 1e-6 above and below


@HEADS.register("masks")
class MaskHead(Head):
    """LISA (https://arxiv.org/abs/2308.00692) and GLaMM (https://arxiv.org/abs/2311.03356): embedding as mask.

    Every `[SEG]` of a reply is one mask; of a clip, one per frame, all with the same prompt. The mask decoder is SAM's
    (`decoder: {name: sam, path: facebook/sam-vit-huge}` over the encoder `sam`), or a small one of its own for any
    encoder whose tokens form a raster. The token is learned as text by the text head.

    Args:
        in_dim: backbone width D (given by the composer).
        target_dim: width E of the grounding encoder (given by the composer).
        features: encoder node that looks at the media for the masks; it needs no adapter.
        token: the string.
        reads: the state "before" the token, which predicts it (as published), or the one "at" it.
        context: number of positions before that one whose states are prompts as well: where the reply says the phrase
            or the box just before the token, the decoder reads them there.
        decoder: `{name: two_way, ...}` (arguments of `MaskDecoder`) or `{name: sam, ...}` (of `SAMDecoder`).
        bce_weight: of the binary cross-entropy, mean over pixels.
        dice_weight: of the Dice loss.
        phrases: add the strings `<p>`, `</p>` that stand around the phrase of a mask (GLaMM).

    Raises:
        UserError: the width of the grounding encoder isn't known.
        RecipeError: an unknown decoder, or arguments that it doesn't take.
    """

    makes = "mask"
    added = ("project.*", "offsets")

    def __init__(
        self,
        in_dim: int,
        target_dim: int | None = None,
        features: str = "image",
        token: str = "[SEG]",
        reads: Literal["at", "before"] = "before",
        context: int = 0,
        decoder: dict = {"name": "two_way"},
        bce_weight: float = 2.0,
        dice_weight: float = 0.5,
        phrases: bool = False,
    ) -> None:
        super().__init__()
        if target_dim is None:
            raise UserError(f"a masks head can't tell the width of its encoder {features!r}; say features: NODE")
        self.features, self.strings = features, PHRASE if phrases else ()
        if context < 0:
            raise UserError(f"context of a masks head is a number of positions, got {context}")
        self.reads: Reads = reads
        self.context, self.layers = context, (-1,) if context else ()
        self.weights = {"bce": bce_weight, "dice": dice_weight}
        self.decoder = _build_decoder(decoder, target_dim)
        self.external = decoder.get("path")
        width: int = self.decoder.dim  # type: ignore[assignment]
        self.project = nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(), nn.Linear(in_dim, width))
        self.offsets = nn.Parameter(torch.randn(1 + context, width) * 0.02) if context else None
        self._spec = signal_slot([token], [token])

    @property
    def spec(self) -> SlotSpec | None:
        """One learned string."""
        return self._spec

    def target_preprocess(self, encoder: Encoder) -> Preprocess | None:
        """Masks in the frame of the encoder's picture, as large as the decoder makes them.

        Raises:
            UserError: an encoder whose tokens form no raster.
        """
        grid = encoder.layout(None).runs[0].grid
        if grid is None:
            raise UserError(f"a masks head needs an encoder whose tokens form a raster; {self.features!r} has none")
        scale: int = self.decoder.scale  # type: ignore[assignment]
        return RegionTarget(kind="mask", size=(grid[0] * scale, grid[1] * scale), frame=encoder.preprocess)

    def forward(
        self, hidden: Hidden | None, batch: Batch, features: Mapping[str, Features], unembed: Unembed | None
    ) -> HeadOutput:
        """States of the tokens (K, 1, D) -> logits (K F, H, W), compared with masks of that size; frames count singly.

        Raises:
            DataError: masks of another size than the decoder's, or another number of frames.
        """
        states = self._read(require_hidden(hidden, self).last, batch)
        if not len(states):
            zero = states.sum() * 0
            counts = dict.fromkeys(self.weights, zero.detach())
            return HeadOutput(losses=dict.fromkeys(self.weights, zero), counts=counts)
        node = str(self.features)
        logits = self._masks(states, _choose(features[node], medium_items(batch, self, node)))
        wanted = self._wanted(batch, logits)
        flat = logits.flatten(0, 1).float()
        sums = {"bce": losses.bce(flat, wanted), "dice": losses.dice(flat, wanted, SMOOTH)}
        sums = {name: self.weights[name] * loss for name, loss in sums.items()}
        count = flat.new_tensor(len(flat))
        return HeadOutput(losses=sums, counts=dict.fromkeys(sums, count), predictions={"masks": logits})

    def generate(self, slot: Slot, num_items: int) -> Float[Tensor, "K F H W"]:
        """Logits of one mask per row, of its latest medium, for each of its frames."""
        written = token_slot(slot)
        return self._masks(self._read_open(written), written.medium(str(self.features)))

    def _read_open(self, slot: TokenSlot) -> Float[Tensor, "K P D"]:
        """The same of an open slot, whose prefix ends at the token."""
        if not self.context:
            return slot.written(1, self.reads)
        num = 1 + self.context
        return last_positions(*slot.prefix(-1), num + (self.reads == "before"))[0][:, :num]

    def _read(self, states: Float[Tensor, "B T D"], batch: Batch) -> Float[Tensor, "K P D"]:
        """States at the tokens, and of the positions before them."""
        if not self.context:
            return read_slots(states, batch, self, 1, self.reads)
        return last_positions(*read_ranges(states, batch, self, self.reads), 1 + self.context)[0]

    def _masks(self, states: Float[Tensor, "K P D"], features: Features) -> Float[Tensor, "K F H W"]:
        """The same prompts for every frame of an item's medium."""
        frames, num_frames = split_frames(features)
        raster = to_raster(frames, "a masks head")
        prompts = self.project(states) + (0.0 if self.offsets is None else self.offsets)
        return self.decoder(raster, prompts.repeat_interleave(num_frames, dim=0)).unflatten(0, (-1, num_frames))

    def _wanted(self, batch: Batch, logits: Float[Tensor, "K F H W"]) -> Float[Tensor, "n H W"]:
        outputs = self.items(batch)
        target = None if outputs is None else outputs.target
        given = [mask.reshape(-1, *mask.shape[-2:]) for mask in target] if target is not None else []
        shapes = {tuple(mask.shape) for mask in given}
        if len(given) != len(logits) or shapes != {tuple(logits.shape[1:])}:
            raise DataError(
                f"{len(logits)} outputs of node {self.node!r} make masks of (frames, height, width) "
                f"{tuple(logits.shape[1:])}; their targets are {sorted(shapes) or 'missing'}"
            )
        return torch.cat(given).float()


def _choose(features: Features, items: list[int]) -> Features:
    """The features of some items, in this order."""
    chosen = torch.tensor(items, device=features.tokens.device, dtype=torch.long)
    mask = None if features.mask is None else features.mask[chosen]
    return Features(tokens=features.tokens[chosen], mask=mask, grid=features.grid)


def _build_decoder(node: Mapping[str, Any], in_dim: int) -> nn.Module:
    name, given = str(node.get("name")), {key: value for key, value in node.items() if key != "name"}
    if name not in DECODERS:
        raise RecipeError([Fault("decoder.name", unknown("mask decoder", name, list(DECODERS)))])
    faults = argument_faults(DECODERS[name], given, "decoder", ("in_dim",))
    if faults:
        raise RecipeError(faults)
    return DECODERS[name](**{"in_dim": in_dim, **given})
