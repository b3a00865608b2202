"""Pictures, clips and sounds of the digit world in one conversation."""

from dataclasses import replace

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.registry import DATASETS
from mmunify.types import Media, Sample, Turn

SOUND_KINDS = ["number", "count", "first", "last"]
"""Kinds of questions about sounds."""

FIRST_RATE = 0.5
"""How often all media are shown before the first question, instead of each one before the questions about it."""


@DATASETS.register("digit_media")
class DigitMedia(Numbered):
    """One picture, one clip and one sound in any order, and questions about each of them.

    The media lie before the first question, or each one before the questions about it. Every answer is that of
    `digit_world`, `digit_video` and `digit_sound` for the medium alone; the facts are those of the three samples, by
    kind of medium.

    Args:
        split: "train" or "test" handwriting.
        tasks: names of tasks of `digit_world`, or their weights, that the picture's questions are drawn from.
        turns: questions about each medium; fewer where a clip leaves no more.
        seed: of all draws.
        length: number of samples.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: an unknown split or task.
    """

    noun = "a set of mixed media"
    task = "multi"

    def __init__(
        self,
        split: str = "train",
        tasks: list[str] | dict[str, float] = ["question"],
        turns: int = 2,
        seed: int = 0,
        length: int = 100_000,
        warp: float = 0.0,
    ) -> None:
        shared = {"split": split, "turns": turns, "seed": seed, "length": length}
        self.pictures = DATASETS.build({"name": "digit_world", "tasks": tasks, "warp": warp, **shared})
        self.clips = DATASETS.build({"name": "digit_video", "warp": warp, **shared})
        self.sounds = DATASETS.build({"name": "digit_sound", "kinds": SOUND_KINDS, **shared})
        super().__init__(length)
        self.seed, self.prefix = seed, f"digit_media-{split}-{seed}"

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        samples = {"image": self.pictures[index], "video": self.clips[index], "audio": self.sounds[index]}
        rng = np.random.default_rng([self.seed, index, 7])
        order = [list(samples)[place] for place in rng.permutation(len(samples))]
        turns = [turn for kind in order for turn in samples[kind].turns]
        return Sample(
            turns=tuple(_media_first(turns) if rng.random() < FIRST_RATE else turns),
            id=f"{self.prefix}-{index}",
            task=self.task,
            source="digit_media",
            facts={kind: samples[kind].facts for kind in order},
        )


def _media_first(turns: list[Turn]) -> list[Turn]:
    """The same conversation with all media at its beginning, in the same order."""
    shown = [part for turn in turns for part in turn.parts if isinstance(part, Media)]
    spoken = [replace(turn, parts=tuple(part for part in turn.parts if not isinstance(part, Media))) for turn in turns]
    return [replace(spoken[0], parts=(*shown, *spoken[0].parts)), *spoken[1:]]
