"""What all models share that learn to take noise away: the training pair, the loss, and the way back from noise."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.idle import touch
from mmunify.layers.streams import Streams
from mmunify.types import HeadOutput

Known = dict[str, Tensor]
"""What a network is told beside the noisy sample, by name; the first dimension is that of the items."""

Network = Callable[[Tensor, Tensor, Known], Tensor]
"""Noisy sample [K C h w], time [K], known -> answer [K C h w]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """One training pair per item.

    Attributes:
        sample: data mixed with noise.
        time: what the network is told of the share of noise.
        target: what the network should answer.
        weight: of the item's loss.
    """

    sample: Float[Tensor, "K *shape"]
    time: Tensor
    target: Float[Tensor, "K *shape"]
    weight: Float[Tensor, "K"]


@runtime_checkable
class Noising(Protocol):
    """A way to mix data and noise, and the scheduler that undoes it."""

    def __call__(self, data: Tensor, streams: Streams) -> Noised:
        """Draw noise and a time for every item."""
        ...

    def scheduler(self) -> Any:
        """A fresh scheduler of diffusers, for one sampling."""
        ...

    def time(self, timestep: Tensor) -> Tensor:
        """The scheduler's timestep as the network is told it."""
        ...

    def answer(self, output: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """The network's answer for a sample, as the scheduler expects it."""
        ...


def denoising_loss(noised: Noised, output: Float[Tensor, "K *shape"]) -> HeadOutput:
    """Weighted squared error, averaged inside an item and summed over K items."""
    error = (output.float() - noised.target.float()).square().flatten(1).mean(1)
    loss = (noised.weight * error).sum()
    return HeadOutput(losses={"denoising": loss}, counts={"denoising": loss.new_tensor(len(error))})


def no_items(module: nn.Module, like: Tensor, name: str = "denoising") -> HeadOutput:
    """The loss of a step without items: zero, with a zero gradient for all that learns.

    Networks refuse empty batches, and ranks must agree on who has a gradient.
    """
    zero = touch(like.new_zeros(()), [module])
    return HeadOutput(losses={name: zero}, counts={name: like.new_zeros(())})


def denoise(
    noising: Noising, network: Network, known: Known, streams: Streams, shape: tuple[int, ...], num_steps: int
) -> Float[Tensor, "K *shape"]:
    """Walk from noise to data.

    Args:
        noising: how the network was trained.
        network: answers for a noisy sample.
        known: handed to the network as it is.
        streams: of the starting noise, and of a stochastic scheduler's later noise.
        shape: of one item.
        num_steps: calls of the network (more with schedulers of second order).
    """
    scheduler = noising.scheduler()
    scheduler.set_timesteps(num_steps, device=streams.device)
    sample = streams.normal(*shape) * getattr(scheduler, "init_noise_sigma", 1.0)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": streams.generators} if takes_generator else {}
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        time = noising.time(timestep).expand(len(sample))
        answer = noising.answer(network(scaled, time, known), scaled, timestep)
        sample = scheduler.step(answer, timestep, sample, **extra, return_dict=False)[0]
    return sample
