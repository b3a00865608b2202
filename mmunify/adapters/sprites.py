"""Every token paints a small raster and says where it lies; what lies on the ground is summed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout

PAINT_STD = 0.01
"""Of the first paintings: faint beside the ground, since N of them are summed."""
GROUND_GAIN = 30.0
"""Adam moves a parameter by its learning rate per step, and features are far from zero: the ground moves faster."""


@ADAPTERS.register("sprites")
class SpritesAdapter(Adapter):
    """One token, one object, which looks the same wherever it lies (sprites, https://arxiv.org/abs/2104.14553).

    An MLP reads each token alone; one linear paints a small raster from what it says, another says where the middle of
    that lies, and it is laid there between the cells (https://arxiv.org/abs/1506.02025). As the connector of a head it
    makes few states into a raster of features; unlike `additive`, it need not learn an object once per place.

    Args:
        in_dim: width E of what it reads (given by the composer).
        out_dim: width D of its answer (given by the composer).
        grid: rows and columns of the raster that it makes.
        side: rows and columns of a sprite, in cells of that raster.
        dim: width of the MLP; the painting linear has dim * side² * D weights.

    Raises:
        UserError: a size below 1.
    """

    def __init__(self, in_dim: int, out_dim: int, grid: int = 8, side: int = 5, dim: int = 512) -> None:
        super().__init__()
        if min(grid, side, dim) < 1:
            raise UserError(f"grid, side and dim of a sprites adapter are at least 1, got {grid}, {side} and {dim}")
        self.grid, self.side = grid, side
        self.read = nn.Sequential(
            nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU()
        )
        self.place = nn.Linear(dim, 2)
        self.paint = nn.Parameter(torch.randn(dim, side**2 * out_dim) * PAINT_STD)
        self.ground = nn.Parameter(torch.zeros(grid**2, out_dim))

    def layout(self, layout: Layout) -> Layout:
        """A raster of grid * grid slots, whatever it reads."""
        return Layout.of(self.grid**2, (self.grid, self.grid))

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, grid², D); masked tokens paint nothing."""
        said = self.read(features.tokens)
        painted = said @ self.paint
        if features.mask is not None:
            painted = torch.where(features.mask[..., None], painted, 0.0)
        sprites = painted.unflatten(-1, (self.side, self.side, -1)).permute(0, 1, 4, 2, 3).flatten(0, 1)
        sprites = sprites.to(torch.promote_types(sprites.dtype, torch.float32))  # places are finer than 16 bits
        laid = F.grid_sample(sprites, self._places(said).flatten(0, 1).to(sprites.dtype), align_corners=False)
        summed = laid.unflatten(0, painted.shape[:2]).sum(1).flatten(2).mT
        return Embeds(tokens=summed.to(self.ground.dtype) + GROUND_GAIN * self.ground)

    def _places(self, said: Float[Tensor, "M N H"]) -> Float[Tensor, "M N G G 2"]:
        """(x, y) of the raster's cells in each sprite, whose edges lie at -1 and 1."""
        middle = self.place(said).float().sigmoid()
        steps = (torch.arange(self.grid, device=said.device) + 0.5) / self.grid
        cells = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
        return (cells - middle[:, :, None, None]) * (2 * self.grid / self.side)
