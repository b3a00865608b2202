"""A small convolutional decoder from a raster of features to pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify import losses
from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.part_folder import read_sizes, write_part
from mmunify.layers.weights import read_weights
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput, Preprocess


@DETOKENIZERS.register("pixel_decoder")
class PixelDecoder(Detokenizer):
    """1x1 projection, residual blocks at the raster's size, (nearest upsampling, convolution) until `size`, sigmoid.

    It is deterministic: one picture per condition, the mean of what the features leave open.

    Args:
        in_dim: width E of the features (given by the composer).
        size: height and width of the picture.
        grid: rows and columns of the raster; `size` is `grid` times a power of two.
        dim: channels at the raster's size; half of it from the second upsampling on.
        depth: residual blocks.
        objective: "l1" (plus structural dissimilarity, where `ssim_weight` > 0) or "mse".
        ssim_weight: of the structural dissimilarity, beside L1.
        path: folder written by `save_folder`; its sizes win over the arguments here.

    Raises:
        UserError: sizes that don't fit, or a folder made for features of another width.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        in_dim: int,
        size: int = 64,
        grid: int = 8,
        dim: int = 64,
        depth: int = 2,
        objective: Literal["l1", "mse"] = "l1",
        ssim_weight: float = 0.2,
        path: str | None = None,
    ) -> None:
        super().__init__()
        self.objective, self.ssim_weight, self.external = objective, ssim_weight, path
        self.sizes = {"in_dim": in_dim, "size": size, "grid": grid, "dim": dim, "depth": depth}
        if path is not None:
            self.sizes = read_sizes(path, "pixel_decoder", in_dim)
        self.size, self.grid = self.sizes["size"], self.sizes["grid"]
        self.num_states = self.grid**2
        self.preprocess = Preprocess(size=(self.size, self.size), mean=(0.0,) * 3, std=(1.0,) * 3, fit="pad")
        self.layers = _decoder(**self.sizes)
        if path is not None and torch.get_default_device().type != "meta":
            self._load(Path(path) / "model.safetensors")

    def forward(self, states: Float[Tensor, "K N E"]) -> Float[Tensor, "K 3 H W"]:
        """Features of a square raster -> pixels in 0..1.

        Raises:
            DataError: the number of features isn't that of the raster.
        """
        if states.shape[1] != self.grid**2:
            raise DataError(
                f"a pixel_decoder with grid={self.grid} decodes {self.grid**2} features per picture, "
                f"got {states.shape[1]}; choose its grid (and the head's num_queries) to match"
            )
        raster = states.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.layers(raster).sigmoid()

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Distance to pixels in 0..1, summed over K pictures; `draw` isn't needed."""
        pixels = self(condition.states)
        terms = {self.objective: self._distance(pixels, target)}
        if self.objective == "l1" and self.ssim_weight:
            terms["ssim"] = self.ssim_weight * losses.ssim(pixels, target)
        counts = {name: pixels.new_tensor(len(pixels)) for name in terms}
        return HeadOutput(losses=terms, counts=counts, predictions={"pixels": pixels})

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1; guidance and seed change nothing, since nothing is drawn."""
        return self(condition.states)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json and model.safetensors, as `path:` reads them; float16 is loaded back as float32."""
        return write_part(folder, "pixel_decoder", self.sizes, self.state_dict(), dtype)

    def _distance(self, pixels: Float[Tensor, "K C H W"], target: Float[Tensor, "K C H W"]) -> Float[Tensor, ""]:
        if self.objective == "l1":
            return losses.l1(pixels, target)
        return losses.feature_mse(pixels.flatten(1), target.flatten(1))

    def _load(self, file: Path) -> None:
        try:
            self.load_state_dict(read_weights(file))
        except RuntimeError as error:
            raise CheckpointError(f"{file} doesn't fit the sizes in its config.json {self.sizes}: {error}") from error


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside the identity.

    Args:
        dim: channels, a multiple of 8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(dim, dim), *_convolution(dim, dim))

    def forward(self, raster: Float[Tensor, "K D h w"]) -> Float[Tensor, "K D h w"]:
        """Same shape."""
        return raster + self.layers(raster)


def _decoder(in_dim: int, size: int, grid: int, dim: int, depth: int) -> nn.Sequential:
    steps = (size // grid).bit_length() - 1
    if size != grid * 2**steps:
        raise UserError(f"size={size} of a pixel_decoder must be grid={grid} times a power of two")
    if dim % 16:
        raise UserError(f"dim of a pixel_decoder must be a multiple of 16, got {dim}")
    widths = [dim] + [dim if step == 0 else dim // 2 for step in range(steps)]
    rise = [
        layer
        for fan_in, fan_out in zip(widths, widths[1:], strict=False)
        for layer in (nn.Upsample(scale_factor=2, mode="nearest"), *_convolution(fan_in, fan_out))
    ]
    blocks = [ResidualBlock(dim) for _ in range(depth)]
    return nn.Sequential(nn.Conv2d(in_dim, dim, 1), *blocks, *rise, nn.Conv2d(widths[-1], 3, 3, padding=1))


def _convolution(fan_in: int, fan_out: int) -> tuple[nn.Module, ...]:
    return nn.GroupNorm(8, fan_in), nn.SiLU(), nn.Conv2d(fan_in, fan_out, 3, padding=1)
