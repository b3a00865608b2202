"""Conversations of the digit world in words alone: what a text backbone is pretrained on."""

from mmunify.data.datasets._numbered import Drafted
from mmunify.data.digit_world.conversations import Conversations, make_sample
from mmunify.data.digit_world.scene import Scene
from mmunify.data.digit_world.words import scene_text
from mmunify.registry import DATASETS
from mmunify.types import Sample, Text


def _show_text(scene: Scene) -> Text:
    return Text(text=scene_text(scene))


@DATASETS.register("digit_text")
class DigitText(Drafted):
    """The conversations of `digit_world`, sample by sample, with every picture told in words.

    A picture becomes "scene:" and, for every digit, where its box begins, ends and has its middle, in parts of 1 / 64,
    each fact beside the digit's name: "red 7 left12 blue 1 top20 ...". Requests for pictures are written as calls.

    Args:
        split: "train" or "test" handwriting.
        tasks: names of tasks, or their weights; None = all of them, dialogues included.
        turns: independent exchanges about one scene.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a scene may have.

    Raises:
        DataError: an unknown split or task, or a number out of range.
    """

    noun = "a digit text"

    def __init__(
        self,
        split: str = "train",
        tasks: list[str] | dict[str, float] | None = None,
        turns: int = 1,
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3, 4],
    ) -> None:
        drafts = Conversations(split, tasks, turns, seed, num_digits, size=64, warp=0.0)
        super().__init__(drafts, f"digit_text-{split}-{seed}", length)

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        return make_sample(self.drafts[index], f"{self.prefix}-{index}", "digit_text", _show_text, outputs=())
