"""Pictures of any size and shape: the whole picture, then its tiles joined into one map (LLaVA-NeXT)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._views import Views, extents_of, raster_of
from mmunify.layers.tiling import ANYRES_CANVASES, AnyResTiling, as_sizes
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout


@ENCODERS.register("anyres")
class AnyResEncoder(Encoder):
    """LLaVA-NeXT's any-res (https://llava-vl.github.io/blog/2024-01-30-llava-next) around any encoder with a raster.

    The tokens of a picture are those of the whole picture, then those of its tiles as one map, row by row, without
    the border. LLaVA-NeXT's learned newline is the backbone's embedding of `newline`; so with a token-wise adapter
    (linear, mlp) the sequence is LLaVA-NeXT's own. Other adapters read all tokens as one masked sequence.

    Args:
        encoder: node of the wrapped encoder.
        canvases: [width, height] to choose from, multiples of the encoder's size; None = LLaVA-NeXT's five.
        newline: vocabulary string after each row of the map ("" = none).

    Raises:
        UserError: an encoder without a raster, or canvases that are no multiples of its size.
    """

    def __init__(self, encoder: Encoder, canvases: Sequence[Sequence[int]] | None = None, newline: str = "\n") -> None:
        super().__init__()
        self.encoder = encoder
        self.out_dim: int = encoder.out_dim
        inner = encoder.preprocess
        height, width = inner.size
        cells = raster_of(encoder, "anyres")
        chosen = ANYRES_CANVASES if canvases is None else canvases
        self.preprocess: AnyResTiling = AnyResTiling(
            size=inner.size,
            mean=inner.mean,
            std=inner.std,
            fit="stretch",
            canvases=as_sizes(chosen, f"canvases of anyres around {type(encoder).__name__}", (width, height)),
            cells=cells,
            newline=newline,
        )

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The whole picture's raster, then the rows of the map; without an extent the raster alone."""
        return self.preprocess.layout(extent)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Padded views of M pictures -> tokens (M, N, E), N of the longest, with a mask."""
        extents = extents_of(context)
        inner = Context(kind=context.kind)
        if extents is None:
            return self.encoder(single_frame(values, "anyres").unsqueeze(1), inner)
        views = Views.of(values, [self.preprocess.num_views(extent) for extent in extents], "anyres")
        features = self.encoder(views.take(values), inner)
        index, mask = self._packing(extents, views.first)
        return Features(
            tokens=_pack(features.tokens, index, mask),
            mask=mask,
            pooled=None if features.pooled is None else features.pooled[views.first],
            layers={layer: _pack(states, index, mask) for layer, states in features.layers.items()},
        )

    def _packing(
        self, extents: list[tuple[int, int]], first: Int[Tensor, "M"]
    ) -> tuple[Int[Tensor, "M N"], Bool[Tensor, "M N"]]:
        """Where each token of an item stands among the tokens of all views, and which are real."""
        size = self.preprocess.cells[0] * self.preprocess.cells[1]
        starts = (first * size).tolist()
        rows = [self._order(extent) + start for extent, start in zip(extents, starts, strict=True)]
        index = pad_sequence(rows, batch_first=True, padding_value=-1).to(first.device)
        return index.clamp(min=0), index >= 0

    def _order(self, extent: tuple[int, int]) -> Int[Tensor, "n"]:
        """Tokens of one item in its sequence, numbered view by view."""
        (columns, rows), (down, across) = self.preprocess.grid(extent), self.preprocess.cells
        base = torch.arange(down * across)
        tiles = torch.arange(rows * columns * down * across).view(rows, columns, down, across) + down * across
        joined = tiles.transpose(1, 2).reshape(rows * down, columns * across)
        return torch.cat([base, joined[self.preprocess.crop(extent)].flatten()])


def _pack(
    tokens: Float[Tensor, "T n E"], index: Int[Tensor, "M N"], mask: Bool[Tensor, "M N"]
) -> Float[Tensor, "M N E"]:
    return tokens.flatten(0, 1)[index] * mask[..., None]
