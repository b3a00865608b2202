"""The noise of flow matching, with the direction of time and the sign of the target written out."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.layers.denoising import Noised
from mmunify.layers.streams import Streams

Target = Literal["noise_minus_data", "data_minus_noise", "data"]

UNITS = 1000
"""Timesteps of diffusers' flow schedulers between data and noise."""


class FlowNoise:
    """A straight line between data x and noise e; the network learns its direction (https://arxiv.org/abs/2210.02747).

    With s the share of noise, the sample is (1 - s) x + s e. Public models disagree on the rest:

    | models | one | target |
    |---|---|---|
    | Sana, MetaQuery, BLIP3-o, BAGEL, SD 3 | noise | noise_minus_data |
    | Lumina 2, OmniGen 2, Show-o2 | data | data_minus_noise |

    Args:
        one: where time is one: at pure "noise" (time = s) or at "data" (time = 1 - s).
        target: what the network answers: e - x, x - e, or x itself ("data"): where latents have more numbers per cell
            than the network has channels to carry noise through, the data is the easier answer
            (https://arxiv.org/abs/2511.13720).
        times: how s is drawn: "uniform", or "lognormal" = sigmoid of a normal number, which prefers the middle.
        shift: s -> shift s / (1 + (shift - 1) s), in training; above 1 it prefers noise.
        time_scale: the network is told time times this (diffusers' Sana: 1000, Lumina 2: 1).
        scheduler: of diffusers, for sampling; None = Euler steps with the same shift.
    """

    def __init__(
        self,
        one: Literal["noise", "data"] = "noise",
        target: Target = "noise_minus_data",
        times: Literal["uniform", "lognormal"] = "uniform",
        shift: float = 1.0,
        time_scale: float = 1000.0,
        scheduler: Any = None,
    ) -> None:
        self.one, self.times, self.shift, self.time_scale = one, times, shift, time_scale
        self.target = target
        self._scheduler = scheduler

    def __call__(self, data: Float[Tensor, "K *shape"], streams: Streams) -> Noised:
        """Noise first, then its share: one pair per item."""
        noise = streams.normal(*data.shape[1:]).to(data.dtype)
        share = self.shares(streams)
        spread = share.view(-1, *[1] * (data.ndim - 1)).to(data.dtype)
        return Noised(
            sample=(1 - spread) * data + spread * noise,
            time=self._told(share),
            target={"noise_minus_data": noise - data, "data_minus_noise": data - noise, "data": data}[self.target],
            weight=torch.ones_like(share),
        )

    def shares(self, streams: Streams) -> Float[Tensor, "K"]:
        """The share of noise of every item, in 0..1."""
        share = streams.normal().sigmoid() if self.times == "lognormal" else streams.uniform()
        return self.shift * share / (1 + (self.shift - 1) * share)

    def scheduler(self) -> Any:
        """A fresh one; it walks from a share of one to zero, along e - x."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        with torch.device("cpu"):
            if self._scheduler is None:
                return FlowMatchEulerDiscreteScheduler(num_train_timesteps=UNITS, shift=self.shift)
            return type(self._scheduler).from_config(self._scheduler.config)

    def time(self, timestep: Tensor) -> Tensor:
        """The scheduler counts `UNITS` times the share of noise."""
        return self._told(timestep / UNITS)

    def answer(self, output: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """The direction e - x, whatever the network answers."""
        if self.target == "data":
            return (sample - output) / (timestep / UNITS)
        return output if self.target == "noise_minus_data" else -output

    def _told(self, share: Tensor) -> Tensor:
        return (share if self.one == "noise" else 1 - share) * self.time_scale
