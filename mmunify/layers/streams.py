"""Several random numbers per item from one draw."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.parts import Draw


class Streams:
    """One stream per item: every call goes on where the last one stopped, while a `Draw` starts anew each time.

    A loss that needs noise, times and coins takes them one after the other; they are independent of each other, and
    of the batch that an item lies in.

    Args:
        draw: seed, step, items and part.
        device: of the numbers; they are made on the CPU, so that they don't depend on it.
    """

    def __init__(self, draw: Draw, device: torch.device | str = "cpu") -> None:
        self.generators = [draw.generator(item) for item in range(len(draw.keys))]
        self.device = device

    @classmethod
    def of_seed(cls, seed: int, num_items: int, device: torch.device | str = "cpu") -> "Streams":
        """Streams for generation: item k depends on (seed, k) alone."""
        return cls(Draw(seed=seed, step=0, keys=range(num_items), part="generate"), device)

    def normal(self, *shape: int) -> Float[Tensor, "K ..."]:
        """Standard normal numbers [K, *shape]."""
        return self._stack([torch.randn(shape, generator=each) for each in self.generators], shape)

    def uniform(self, *shape: int) -> Float[Tensor, "K ..."]:
        """Uniform numbers in [0, 1), [K, *shape]."""
        return self._stack([torch.rand(shape, generator=each) for each in self.generators], shape)

    def _stack(self, rows: list[Tensor], shape: tuple[int, ...]) -> Float[Tensor, "K ..."]:
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(self.device)
