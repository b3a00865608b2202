"""Conversations about pictures of the digit world."""

from mmunify.data.datasets._numbered import Drafted
from mmunify.data.digit_world.conversations import Conversations, make_sample
from mmunify.data.digit_world.replies import OUTPUTS, check_outputs
from mmunify.registry import DATASETS
from mmunify.types import Sample


@DATASETS.register("digit_world")
class DigitWorld(Drafted):
    """Questions, masks, edits, layouts and pictures in one conversation format; drawn, never stored.

    Sample `index` is a pure function of (seed, split, index). Its `task` is the task's name, "multi" for several
    turns, or "dialogue"; samples of one exchange carry `facts` (see `digit_world.facts`).

    Args:
        split: "train" or "test" handwriting.
        tasks: names of tasks, or their weights; None = all of them, dialogues included.
        turns: independent exchanges about one picture, which then is encoded once for all of them.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a scene may have, and that a user may ask for in one exchange.
        size: side of the pictures in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.
        outputs: tasks whose answers are outputs: the pictures of generate_image, edit, remove, recolor and replace, the
            masks of segment, the boxes of refer. A head for that kind of output makes them; where there is none they
            are written as text, as are those of the other tasks: calls of experts, and boxes in words.
        boxed: tasks among them whose output follows the boxes of its digits in words: `<box>red 7[...]</box>[SEG]`.

    Raises:
        DataError: an unknown split or task, or a number out of range.
    """

    noun = "a digit world"

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
        outputs: list[str] = list(OUTPUTS),
        boxed: list[str] = [],
    ) -> None:
        self.outputs, self.boxed = check_outputs(outputs), check_outputs(boxed)
        drafts = Conversations(split, tasks, turns, seed, num_digits, size, warp)
        super().__init__(drafts, f"digit_world-{split}-{seed}", length)

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        name = f"{self.prefix}-{index}"
        return make_sample(self.drafts[index], name, "digit_world", outputs=self.outputs, boxed=self.boxed)
