"""Conversations about pictures of the digit world."""

from mmunify.data.digit_world.conversations import Conversations, make_sample
from mmunify.registry import DATASETS
from mmunify.types import Sample


@DATASETS.register("digit_world")
class DigitWorld:
    """Questions, masks, edits, layouts and pictures in one conversation format; drawn, never stored.

    Sample `index` is a pure function of (seed, split, index). Its `task` is the task's name, "multi" for several
    turns, or "dialogue"; samples of one exchange carry `facts` (see `digit_world.facts`).

    Args:
        split: "train" or "test" handwriting.
        tasks: names of tasks, or their weights; None = all of them, dialogues included.
        turns: independent exchanges about one picture, which then is encoded once for all of them.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a scene may have.
        size: side of the pictures in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: an unknown split or task, or a number out of range.
    """

    def __init__(
        self,
        split: str = "train",
        tasks: list[str] | dict[str, float] | None = None,
        turns: int = 1,
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3, 4],
        size: int = 64,
        warp: float = 0.0,
    ) -> None:
        self.drafts = Conversations(split, tasks, turns, seed, num_digits, size, warp)
        self.length, self.prefix = length, f"digit_world-{split}-{seed}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside 0..length - 1.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of a digit world with {self.length} samples")
        return make_sample(self.drafts[index], f"{self.prefix}-{index}", "digit_world")
