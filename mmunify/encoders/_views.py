"""What encoders of pictures of any size share: the views of a padded batch, taken apart and joined again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.errors import DataError, UserError
from mmunify.parts import Context, Encoder

Extent = tuple[int, int]


def extents_of(context: Context) -> list[Extent] | None:
    """Original (width, height) of every item; None for pictures that were read as one plain view (targets)."""
    if context.extent is None:
        return None
    return [(width, height) for width, height in context.extent.tolist()]


def raster_of(encoder: Encoder, name: str) -> tuple[int, int]:
    """Rows and columns of an encoder's tokens.

    Raises:
        UserError: its tokens form no raster.
    """
    runs = encoder.layout().runs
    if len(runs) != 1 or runs[0].grid is None:
        raise UserError(
            f"{name} needs an encoder whose tokens form a raster, and {type(encoder).__name__} makes none "
            "(a class token kept in front? `drop_class: true`)"
        )
    return runs[0].grid


@dataclass(frozen=True, slots=True)
class Views:
    """Which of a batch's padded views are real.

    Attributes:
        real: True for a real view; an item's real views come first.
        first: number of every item's first view among the T real ones.
    """

    real: Bool[Tensor, "M F"]
    first: Int[Tensor, "M"]

    @classmethod
    def of(cls, values: Float[Tensor, "M F C H W"], counts: Sequence[int], name: str) -> "Views":
        """The first `counts[m]` views of every item m.

        Raises:
            DataError: fewer views than an item of its size has.
        """
        if len(counts) != len(values) or max(counts, default=0) > values.shape[1]:
            raise DataError(
                f"encoder {name!r} got {len(values)} items of {values.shape[1]} views, where their sizes ask for "
                f"{list(counts)}: read the pictures with its own preprocessing"
            )
        numbers = torch.tensor(counts, device=values.device, dtype=torch.long)
        real = torch.arange(values.shape[1], device=values.device)[None, :] < numbers[:, None]
        return cls(real=real, first=numbers.cumsum(0) - numbers)

    def take(self, values: Float[Tensor, "M F C H W"]) -> Float[Tensor, "T 1 C H W"]:
        """The real views as items of their own."""
        return values[self.real].unsqueeze(1)

    def join(self, tokens: Float[Tensor, "T N E"]) -> Float[Tensor, "M n E"]:
        """Views side by side in their item, zeros where there is none."""
        number = self.first[:, None] + torch.arange(self.real.shape[1], device=tokens.device)
        padded = tokens[number.clamp(max=len(tokens) - 1)] * self.real[..., None, None]
        return padded.flatten(1, 2)

    def mask(self, num_tokens: int) -> Bool[Tensor, "M n"] | None:
        """Which joined tokens are real; None = all."""
        return None if bool(self.real.all()) else self.real.repeat_interleave(num_tokens, dim=1)

    def join_layers(self, layers: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Joined tokens of every layer."""
        return {index: self.join(states) for index, states in layers.items()}
