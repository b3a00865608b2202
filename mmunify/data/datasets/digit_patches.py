"""Pictures of the digit world with a label per patch: dense supervision for a vision tower."""

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.data.digit_world.conversations import SPLITS, check_scenes
from mmunify.data.digit_world.scene import COLORS, Scene, draw_scene, make_scene
from mmunify.data.digit_world.words import CELLS, cell_owners
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Sample, Turn


def label_patches(scene: Scene) -> np.ndarray:
    """What each patch of the 8 x 8 grid shows: float32 [64 7].

    Columns: objectness (0 or 1), digit (0..9), index of the colour in `COLORS`, box x0, y0, x1, y1 in 0..1; zeros
    where no digit is. A patch belongs to a digit as a cell of `cell_owners` does.
    """
    colors = list(COLORS)
    rows = [(1, digit.digit, colors.index(digit.color), *digit.norm_box(scene.size)) for digit in scene.digits]
    return np.asarray([*rows, (0,) * 7], dtype=np.float32)[cell_owners(scene).reshape(CELLS * CELLS)]


@DATASETS.register("digit_patches")
class DigitPatches(Numbered):
    """One picture in, one output of kind "patches" whose target is `label_patches`.

    Args:
        split: "train" or "test" handwriting.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a scene may have.
        size: side of the pictures in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: an unknown split or a number of digits out of range.
    """

    noun = "a patch set"
    task = "patches"

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3, 4],
        size: int = 64,
        warp: float = 0.0,
    ) -> None:
        check_scenes(split, num_digits)
        super().__init__(length)
        self.split, self.seed = split, seed
        self.num_digits, self.size, self.warp = tuple(num_digits), size, warp

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        number = self.num_digits[int(rng.integers(len(self.num_digits)))]
        scene = make_scene(rng, "train" if self.split == "train" else "test", number, self.size, self.warp)
        picture = Media(kind="image", source=draw_scene(scene))
        labels = Output(kind="patches", target=label_patches(scene), condition=0)
        return Sample(
            turns=(Turn(role="user", parts=(picture,)), Turn(role="assistant", parts=(labels,))),
            id=f"digit_patches-{self.split}-{self.seed}-{index}",
            task=self.task,
            source="digit_patches",
            facts={"scene": scene},
        )
