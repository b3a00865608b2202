"""From a prompt and a raster of features to a mask."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.positions import sincos_2d
from mmunify.layers.projector import projector
from mmunify.layers.two_way import TwoWayTransformer

PRIOR = -3.0
"""Logit of every pixel at first: few belong to a mask (https://arxiv.org/abs/1708.02002, section 4.1)."""


class MaskDecoder(nn.Module):
    """A small mask decoder after SAM's (https://arxiv.org/abs/2304.02643), for any encoder's raster.

    A learned mask token and the prompts read the raster and are read by it; the raster is doubled `steps` times by
    transposed convolutions, and its features are multiplied with what an MLP makes of the mask token.

    Args:
        in_dim: width E of the raster.
        dim: width of the decoder and of its prompts, a multiple of 8 * num_heads.
        depth: two-way blocks.
        num_heads: of every attention.
        hidden_dim: inside the feed-forwards; None = 4 dim.
        steps: doublings of the raster.

    Raises:
        UserError: a width that can't be divided.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        hidden_dim: int | None = None,
        steps: int = 2,
    ) -> None:
        super().__init__()
        if dim % (2 * num_heads) or dim % 2 ** (steps + 1) or dim % 4:
            raise UserError(
                f"dim={dim} of a mask decoder must be a multiple of 2 * num_heads = {2 * num_heads} and of "
                f"2^(steps + 1) = {2 ** (steps + 1)}"
            )
        self.dim, self.scale = dim, 2**steps
        self.enter = nn.Conv2d(in_dim, dim, 1)
        self.mask_token = nn.Parameter(torch.randn(1, dim) * 0.02)
        self.transformer = TwoWayTransformer(dim, depth, num_heads, hidden_dim or 4 * dim)
        widths = [dim // 2**i for i in range(1, steps + 1)]
        self.rise = nn.Sequential(*_doublings(dim, widths))
        self.read = projector(dim, dim, widths[-1] if widths else dim)
        self.bias = nn.Parameter(torch.full((1,), PRIOR))

    def forward(self, raster: Float[Tensor, "K E h w"], prompts: Float[Tensor, "K P D"]) -> Float[Tensor, "K H W"]:
        """One mask per item, as logits; H = scale * h."""
        states = self.enter(raster)
        size = states.shape[2:]
        tokens = torch.cat([self.mask_token.expand(len(prompts), -1, -1), prompts], dim=1)
        places = sincos_2d((size[0], size[1]), self.dim, device=states.device).to(states.dtype)
        tokens, cells = self.transformer(tokens, states.flatten(2).transpose(1, 2), places)
        risen = self.rise(cells.transpose(1, 2).unflatten(2, size))
        return torch.einsum("kd,kdhw->khw", self.read(tokens[:, 0]), risen) + self.bias


def _doublings(dim: int, widths: list[int]) -> list[nn.Module]:
    """Twice as large and half as wide, again and again."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([dim, *widths], widths, strict=False):
        layers += [nn.ConvTranspose2d(fan_in, fan_out, 2, stride=2), nn.GELU()]
    return layers
