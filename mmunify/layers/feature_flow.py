"""Features drawn by flow matching, where a regression would answer with the mean of all that is possible."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.denoising import Known, denoise, denoising_loss
from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.positions import sincos_1d
from mmunify.layers.projector import projector
from mmunify.layers.streams import Streams
from mmunify.layers.vision_block import VisionBlock


class FeatureFlow(nn.Module):
    """A small transformer over the noisy features, each beside its own state (https://arxiv.org/abs/2505.09568).

    It answers with the features themselves, so that its answer can stand for them where a gradient is needed.

    Args:
        features_dim: width E of the features, and of the states.
        dim: width inside; None = E.
        depth: blocks.
        num_heads: of their attention; None = one per 64 numbers of `dim`.
        scale: features are divided by it, so that they are about as large as the noise.
        steps: of Euler's rule when drawing.
    """

    def __init__(
        self,
        features_dim: int,
        dim: int | None = None,
        depth: int = 3,
        num_heads: int | None = None,
        scale: float = 1.0,
        steps: int = 20,
    ) -> None:
        super().__init__()
        self.features_dim, self.scale, self.steps = features_dim, scale, steps
        dim = dim or features_dim
        self.dim = dim + dim % 2  # sines and cosines
        self.enter, self.told = nn.Linear(features_dim, self.dim), nn.Linear(features_dim, self.dim)
        self.time = projector(self.dim, self.dim, self.dim)
        self.blocks = nn.ModuleList(VisionBlock(self.dim, num_heads or max(1, self.dim // 64)) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, features_dim))
        self.noising = FlowNoise(target="data", times="lognormal")

    def forward(
        self, sample: Float[Tensor, "K Q E"], time: Float[Tensor, "K"], states: Float[Tensor, "K Q E"]
    ) -> Float[Tensor, "K Q E"]:
        """Noisy features, the share of noise in thousandths, and the states -> features without noise."""
        clock = self.time(sincos_1d(time.float(), self.dim).to(states.dtype))
        tokens = self.enter(sample.to(states.dtype)) + self.told(states) + clock[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return self.leave(tokens)

    def learn(
        self, states: Float[Tensor, "K Q E"], wanted: Float[Tensor, "K Q E"], streams: Streams
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "K Q E"]]:
        """The loss, summed over items, and the features that it believes in.

        Args:
            states: what is known of the features.
            wanted: the features.
            streams: of noise and times; one per item.
        """
        noised = self.noising(wanted / self.scale, streams)
        believed = self(noised.sample, noised.time, states)
        return denoising_loss(noised, believed).losses["denoising"], believed * self.scale

    @torch.no_grad()
    def draw(self, states: Float[Tensor, "K Q E"], seed: int = 0) -> Float[Tensor, "K Q E"]:
        """Features; every item starts from the same noise, whatever else is drawn with it."""
        same = Streams.of_seed(seed, 1, states.device).normal(states.shape[1], self.features_dim)
        streams = _Same(same.expand(len(states), -1, -1), states.device)

        def network(sample: Tensor, time: Tensor, known: Known) -> Tensor:
            return self(sample, time, known["states"])

        shape = (states.shape[1], self.features_dim)
        drawn = denoise(self.noising, network, {"states": states}, streams, shape, self.steps)
        return (drawn * self.scale).to(states.dtype)


class _Same(Streams):
    """Noise that is given."""

    def __init__(self, noise: Float[Tensor, "K Q E"], device: torch.device) -> None:
        self.noise, self.device, self.generators = noise, device, []

    def normal(self, *shape: int) -> Float[Tensor, "K ..."]:
        """The given noise."""
        return self.noise
