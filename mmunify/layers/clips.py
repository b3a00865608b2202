"""Clips as numbers: which frames of a video an encoder sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmunify.types import Preprocess

Sampling = Literal["middle", "starts", "ends"]

FRAMES: dict[Sampling, Callable[[int, int, int], int]] = {
    "middle": lambda i, wanted, length: (2 * i + 1) * length // (2 * wanted),
    "starts": lambda i, wanted, length: i * length // wanted,
    "ends": lambda i, wanted, length: round(i * (length - 1) / max(wanted - 1, 1)),
}
"""Name of a rule -> (number of the sample, samples, frames of the clip) -> frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPreprocess(Preprocess):
    """A video becomes `num_frames` pictures, uniformly sampled and always the same ones.

    A clip of fewer frames shows some of them several times, so that sample i always stands for the same part of the
    clip: what is learned of the order and speed of things does not depend on the frame rate.

    Attributes:
        kind: of the node.
        num_frames: F.
        sampling: the clip is cut into F equal parts; "middle" takes the middle of each, "starts" its first frame
            (GroundingGPT, https://arxiv.org/abs/2401.06071), "ends" spreads the samples from the first frame to the
            last one.
    """

    kind: str = "video"
    num_frames: int = 64
    sampling: Sampling = "middle"

    def indices(self, length: int) -> list[int]:
        """The frames of a clip of `length` frames that are seen, in order."""
        rule = FRAMES[self.sampling]
        return [rule(i, self.num_frames, length) for i in range(self.num_frames)]
