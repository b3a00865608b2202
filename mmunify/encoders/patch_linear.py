"""No tower: patches of the picture in its own size and shape (Fuyu)."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._views import extents_of
from mmunify.errors import DataError, UserError
from mmunify.layers.positions import sincos_1d
from mmunify.layers.tiling import PatchTiling
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout


@ENCODERS.register("patch_linear")
class PatchLinearEncoder(Encoder):
    """Pixels of patches, flattened (row, column, channel), raster by raster (https://www.adept.ai/blog/fuyu-8b).

    With the defaults it learns nothing: the tokens are the pixels themselves, and adapter `linear` is Fuyu's whole
    vision side. With `dim` it has a linear of its own, with norms and positions on request, as later towerless models.

    Args:
        patch_size: side of a patch.
        size: largest [height, width]; larger pictures are scaled down, smaller ones are left as they are.
        dim: width of its own linear; None = none.
        norm: layer norms before and behind its own linear.
        positions: 2-D positions of the patches: "none" as Fuyu, "sincos", or "learned" (a table of rows plus one of
            columns).
        newline: vocabulary string after each row of patches ("" = none).
        attention: of the backbone among the patches of one picture: "causal" as Fuyu, or "full".

    Raises:
        UserError: norms or positions without `dim`, or a size without a whole patch.
    """

    cacheable = False  # the raster is that of the batch's largest item

    def __init__(
        self,
        patch_size: int = 30,
        size: list[int] = [1080, 1920],
        dim: int | None = None,
        norm: bool = False,
        positions: Literal["none", "sincos", "learned"] = "none",
        newline: str = "|NEWLINE|",
        attention: Literal["causal", "full"] = "causal",
    ) -> None:
        super().__init__()
        if dim is None and (norm or positions != "none"):
            raise UserError(
                f"patch_linear with norm={norm}, positions={positions!r} needs a linear of its own: give dim"
            )
        if len(size) != 2 or min(size) < patch_size:
            raise UserError(
                f"size of patch_linear is [height, width], each at least a patch of {patch_size}; got {size}"
            )
        self.patch_size, self.kind = patch_size, positions
        self.preprocess: PatchTiling = PatchTiling(
            size=(size[0], size[1]),
            fit="stretch",
            patch_size=patch_size,
            newline=newline,
            attention=attention,
        )
        pixels = 3 * patch_size**2
        self.out_dim: int = dim or pixels
        self.project = nn.Identity() if dim is None else _projection(pixels, dim, norm)
        self.tables = _tables(self.preprocess.cells(None), self.out_dim) if positions == "learned" else None

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The rows of patches with their newlines; without an extent those of the largest picture."""
        return self.preprocess.layout(extent)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures padded to one size -> tokens (M, rows columns, E); masked where an item is smaller."""
        pixels, side = single_frame(values, "patch_linear"), self.patch_size
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        patches = rearrange(pixels, "m c (r y) (k x) -> m (r k) (y x c)", r=rows, k=columns)
        tokens = self.project(patches)
        if self.kind != "none":
            tokens = tokens + self._positions(rows, columns, tokens)
        mask = self._mask(extents_of(context), rows, columns, tokens.device)
        return Features(tokens=tokens, mask=mask, grid=(rows, columns) if mask is None else None)

    def _positions(self, rows: int, columns: int, like: Tensor) -> Float[Tensor, "n E"]:
        down, across = self._axis(0, rows, like), self._axis(1, columns, like)
        return (down[:, None] + across[None, :]).flatten(0, 1).to(like.dtype)

    def _axis(self, axis: int, length: int, like: Tensor) -> Float[Tensor, "n E"]:
        """Positions along one axis; sine-cosine ones take half of the width each."""
        if self.tables is not None:
            return self.tables[axis][:length]
        half = self.out_dim // 2
        places = sincos_1d(torch.arange(length, device=like.device, dtype=torch.float32), half)
        return nn.functional.pad(places, (half * axis, self.out_dim - half * (axis + 1)))

    def _mask(
        self, extents: list[tuple[int, int]] | None, rows: int, columns: int, device: torch.device
    ) -> Bool[Tensor, "M n"] | None:
        """Which patches are of the item and not of the batch's padding; None = all."""
        if extents is None:
            return None
        cells = torch.tensor([self.preprocess.cells(extent) for extent in extents], device=device).view(-1, 2)
        if bool((cells > torch.tensor([rows, columns], device=device)).any()):
            raise DataError(
                f"pictures of {rows} x {columns} patches, where their sizes ask for {cells.tolist()}: read them with "
                "patch_linear's own preprocessing"
            )
        down = torch.arange(rows, device=device)[None, :, None] < cells[:, 0, None, None]
        across = torch.arange(columns, device=device)[None, None, :] < cells[:, 1, None, None]
        mask = (down & across).flatten(1)
        return None if bool(mask.all()) else mask


def _projection(pixels: int, dim: int, norm: bool) -> nn.Module:
    linear = nn.Linear(pixels, dim)
    return nn.Sequential(nn.LayerNorm(pixels), linear, nn.LayerNorm(dim)) if norm else linear


def _tables(cells: tuple[int, int], dim: int) -> nn.ParameterList:
    return nn.ParameterList(torch.randn(length, dim) * 0.02 for length in cells)
