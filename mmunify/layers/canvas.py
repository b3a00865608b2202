"""Where a network that denoises latents learns and draws pictures."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.layers.denoising import Known, Network, Noising, denoise, denoising_loss
from mmunify.layers.dropping import Drops, all_drops, draw_drops
from mmunify.layers.guidance import guided
from mmunify.layers.latents import Latents, fit_pixels, target_latents
from mmunify.layers.part_options import TrainingOptions
from mmunify.layers.streams import Streams
from mmunify.parts import Draw
from mmunify.types import Condition, HeadOutput, Preprocess

Tell = Callable[[Condition, Drops], Known]
"""What the network is told of a condition, given where it and its source are dropped."""


class LatentCanvas(nn.Module):
    """The latents of pictures of one size, and the noise in them.

    Args:
        latents: pictures as latents and back.
        noising: how noise comes in, and how it goes out.
        size: side of the pictures.
    """

    def __init__(self, latents: Latents, noising: Noising, size: int) -> None:
        super().__init__()
        self.latents, self.noising = latents, noising
        self.size = (size, size)
        self.shape = (latents.channels, size // latents.factor, size // latents.factor)
        self.preprocess = Preprocess(size=self.size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="pad")

    def loss(
        self,
        target: Float[Tensor, "K C H W"],
        condition: Condition,
        draw: Draw,
        network: Network,
        tell: Tell,
        options: TrainingOptions,
    ) -> HeadOutput:
        """The denoising loss of K pictures in 0..1 (or of their cached latents); K is at least one.

        Args:
            target: the pictures.
            condition: what they are drawn from.
            draw: of noise, times and drops.
            network: answers for noisy latents.
            tell: what it is told.
            options: how often what is dropped.
        """
        streams = Streams(draw, target.device)
        drops = draw_drops(options, condition, streams)
        data = target_latents(self.latents, target, self.size, streams)
        noised = self.noising(data, streams)
        return denoising_loss(noised, network(noised.sample, noised.time, tell(condition, drops)))

    @torch.no_grad()
    def draw(
        self, condition: Condition, network: Network, tell: Tell, strengths: Mapping[str, float], steps: int, seed: int
    ) -> Float[Tensor, "K C H W"]:
        """Pictures in 0..1.

        Args:
            condition: of K pictures; guidance has a rung for its source if it has one.
            network: answers for noisy latents.
            tell: what it is told.
            strengths: of "condition" and "source".
            steps: of the scheduler.
            seed: of the noise.
        """
        rungs, climbed = [(True, True), (False, False)], [strengths["condition"]]
        if condition.image is not None:
            rungs, climbed = [rungs[0], (True, False), rungs[1]], [strengths["source"], strengths["condition"]]
        told = [tell(condition, all_drops(condition, *rung)) for rung in rungs]
        answer, known = guided(network, told, climbed)
        streams = Streams.of_seed(seed, len(condition.states), condition.states.device)
        return self.latents.decode(denoise(self.noising, answer, known, streams, self.shape, steps))

    def source(self, condition: Condition, dropped: Bool[Tensor, "K"]) -> Float[Tensor, "K c h w"]:
        """Latents of the source pictures, not scaled; zeros for items without one and where it is dropped."""
        if condition.image is None:
            return condition.states.new_zeros(len(condition.states), *self.shape)
        kept = self.has_source(condition) & ~dropped
        latents = self.latents.source(fit_pixels(condition.image, self.size))
        return torch.where(kept[:, None, None, None], latents, 0.0)

    def has_source(self, condition: Condition) -> Bool[Tensor, "K"]:
        """Which items start from a picture."""
        if condition.image_mask is not None:
            return condition.image_mask
        return condition.states.new_full((len(condition.states),), condition.image is not None, dtype=torch.bool)


def picture_side(network: Any, factor: int, size: int | None) -> int:
    """Side of the pictures: what is asked for, else what the network was made for."""
    return size or int(network.config.sample_size) * factor
