"""Pictures of any size and shape: tiles and the whole picture, each encoded on its own (SEED-X)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._views import Views, extents_of, raster_of
from mmunify.layers.tile_positions import TilePositions
from mmunify.layers.tiling import SEEDX_GRIDS, SeedXTiling, as_sizes
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout


@ENCODERS.register("seedx_tiles")
class SeedXTilesEncoder(Encoder):
    """SEED-X's dynamic resolution (https://arxiv.org/abs/2404.14396) around any encoder of still pictures.

    The tokens of an item are those of its views, view by view; `Features.grid` is the raster of one view, so adapters
    that work raster by raster fill each view's slots: a resampler of 64 queries 64. In the sequence each tile stands
    between `opens` and `closes`, the whole picture, last, between the node's own pair.

    The position embedding is added to the encoder's tokens, before the adapter, as the released tower can. The released
    model adds it behind the adapter, in the backbone's width: `positions: false` here, and adapter `tile_positions`.

    Args:
        encoder: node of the wrapped encoder.
        rule: "released" = the published code's choice among `grids`; "ceiling" = the paper's, as many tiles as cover
            the picture.
        grids: [columns, rows] to choose from; None = the eight released ones.
        max_tiles: limit of the ceiling rule; None = none.
        positions: whether tokens learn where their view lies; let `encoders.*.positions.*` learn.
        opens, closes: vocabulary strings around each tile ("" = none).

    Raises:
        UserError: an encoder without a raster, or grids that are no pairs of whole numbers.
    """

    def __init__(
        self,
        encoder: Encoder,
        rule: Literal["released", "ceiling"] = "released",
        grids: Sequence[Sequence[int]] | None = None,
        max_tiles: int | None = None,
        positions: bool = True,
        opens: str = "<patch>",
        closes: str = "</patch>",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_dim: int = encoder.out_dim
        self.positions = TilePositions(self.out_dim) if positions else None
        self._grid = raster_of(encoder, "seedx_tiles")
        inner = encoder.preprocess
        self.preprocess: SeedXTiling = SeedXTiling(
            size=inner.size,
            mean=inner.mean,
            std=inner.std,
            fit="stretch",
            rule=rule,
            grids=as_sizes(SEEDX_GRIDS if grids is None else grids, "grids"),
            max_tiles=max_tiles,
            opens=opens,
            closes=closes,
        )

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """One view; with an extent all views with their strings."""
        view = Layout.of(self._grid[0] * self._grid[1], self._grid)
        return view if extent is None else self.preprocess.layout(view, extent)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Padded views of M pictures -> tokens (M, F N, E) view by view, with a mask."""
        extents = extents_of(context)
        if extents is None:
            views = Views.of(single_frame(values, "seedx_tiles").unsqueeze(1), [1] * len(values), "seedx_tiles")
            centers = [(0.5, 0.5)] * len(values)
        else:
            views = Views.of(values, [self.preprocess.num_views(extent) for extent in extents], "seedx_tiles")
            centers = [center for extent in extents for center in self.preprocess.centers(extent)]
        features = self.encoder(views.take(values), Context(kind=context.kind))
        last = views.first + views.real.sum(dim=1) - 1
        places = torch.tensor(centers, device=values.device).view(-1, 2)
        return Features(
            tokens=views.join(self._placed(features.tokens, places)),
            mask=views.mask(features.tokens.shape[1]),
            grid=self._grid,
            pooled=None if features.pooled is None else features.pooled[last],
            layers=views.join_layers(features.layers),
            centers=views.join(places[:, None]),
        )

    def _placed(self, tokens: Float[Tensor, "T N E"], centers: Float[Tensor, "T 2"]) -> Float[Tensor, "T N E"]:
        """The tokens, told where their view lies."""
        if self.positions is None:
            return tokens
        return tokens + self.positions(centers)[:, None].to(tokens.dtype)
