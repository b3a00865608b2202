"""Pictures as the grids of numbers that diffusion works on, and back."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.layers.streams import Streams


class CodedLatents(nn.Module):
    """Latents of a frozen autoencoder of diffusers (AutoencoderKL, AutoencoderDC).

    Args:
        autoencoder: with `scaling_factor` in its configuration.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder: Any = autoencoder.requires_grad_(False)
        config = self.autoencoder.config
        stages = config.get("block_out_channels") or config["encoder_block_out_channels"]
        self.channels: int = config["latent_channels"]
        self.factor = 2 ** (len(stages) - 1)
        self.scale, self.shift = config["scaling_factor"], config.get("shift_factor") or 0.0

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "K C H W"], streams: Streams | None = None) -> Float[Tensor, "K c h w"]:
        """Scaled latents of pixels in 0..1; with `streams` a sample of their distribution, else its mode."""
        return (self._code(pixels, streams) - self.shift) * self.scale

    @torch.no_grad()
    def source(self, pixels: Float[Tensor, "K C H W"]) -> Float[Tensor, "K c h w"]:
        """Latents of a picture that is a condition: the mode, not scaled (InstructPix2Pix' and SEED-X' convention)."""
        return self._code(pixels, None)

    def decode(self, latents: Float[Tensor, "K c h w"]) -> Float[Tensor, "K C H W"]:
        """Scaled latents -> pixels in 0..1."""
        pixels = self.autoencoder.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return (pixels / 2 + 0.5).clamp(0, 1)

    def _code(self, pixels: Tensor, streams: Streams | None) -> Tensor:
        code = self.autoencoder.encode(2 * pixels - 1)
        if not hasattr(code, "latent_dist"):
            return code.latent
        if streams is None:
            return code.latent_dist.mode()
        mean, std = code.latent_dist.mean, code.latent_dist.std
        return mean + std * streams.normal(*mean.shape[1:]).to(mean.dtype)


class FoldedPixels(nn.Module):
    """Squares of pixels as channels: nothing is lost and nothing is learned.

    Args:
        fold: side of a square.
    """

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.factor, self.channels = fold, 3 * fold**2

    def encode(self, pixels: Float[Tensor, "K C H W"], streams: Streams | None = None) -> Float[Tensor, "K c h w"]:
        """Pixels in 0..1 -> numbers in -1..1."""
        return F.pixel_unshuffle(2 * pixels - 1, self.factor)

    def source(self, pixels: Float[Tensor, "K C H W"]) -> Float[Tensor, "K c h w"]:
        """As `encode`."""
        return self.encode(pixels)

    def decode(self, latents: Float[Tensor, "K c h w"]) -> Float[Tensor, "K C H W"]:
        """The inverse of `encode`, into 0..1."""
        return (F.pixel_shuffle(latents, self.factor) / 2 + 0.5).clamp(0, 1)


Latents = CodedLatents | FoldedPixels


def fit_pixels(pixels: Float[Tensor, "K C H W"], size: tuple[int, int]) -> Float[Tensor, "K C h w"]:
    """Pixels in 0..1 at another size, bicubic; those that fit pass unchanged."""
    if tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def target_latents(
    latents: Latents, target: Float[Tensor, "K C H W"], size: tuple[int, int], streams: Streams
) -> Float[Tensor, "K c h w"]:
    """Latents of target pictures in 0..1; what has the latents' number of channels is taken for cached ones."""
    if target.shape[1] == latents.channels and target.shape[1] != 3:
        return target
    return latents.encode(fit_pixels(target, size), streams)
