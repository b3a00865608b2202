"""Questions about clips of moving digits."""

import numpy as np

from mmunify.data.digit_world.clip_questions import CLIP_KINDS, make_clip_question
from mmunify.data.digit_world.clips import clip_masks, draw_clip
from mmunify.data.digit_world.conversations import SPLITS, check_scenes
from mmunify.data.digit_world.drawing_lots import Lots
from mmunify.registry import DATASETS
from mmunify.types import Media, Sample, Text, Turn


@DATASETS.register("digit_video")
class DigitVideo:
    """One clip, one question about what moves where, or what leaves or enters first, last, in which order.

    Sample `index` is a pure function of (seed, split, index). Its facts: `kind` of the question, `answer`, the `clip`,
    and for questions about one digit its number `subject` and its `masks`, Bool[F H W].

    Args:
        split: "train" or "test" handwriting.
        kinds: kinds of questions (keys of `CLIP_KINDS`), or their weights; None = all of them.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a clip may have.
        num_frames: of a clip.
        size: side of the frames in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.

    Raises:
        DataError: an unknown split or kind, or a number out of range.
    """

    def __init__(
        self,
        split: str = "train",
        kinds: list[str] | dict[str, float] | None = None,
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3],
        num_frames: int = 8,
        size: int = 64,
        warp: float = 0.0,
    ) -> None:
        check_scenes(split, num_digits)
        self.kinds = Lots(list(CLIP_KINDS) if kinds is None else kinds, CLIP_KINDS, "kind of clip question")
        self.split, self.seed, self.length = split, seed, length
        self.num_digits, self.num_frames, self.size, self.warp = tuple(num_digits), num_frames, size, warp

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside 0..length - 1.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of a digit video set with {self.length} samples")
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        hand = "train" if self.split == "train" else "test"
        clip, question = make_clip_question(
            rng, self.kinds.draw(rng), self.num_digits, hand, self.num_frames, self.size, self.warp
        )
        facts = {"kind": question.kind, "answer": question.answer, "clip": clip}
        if question.subject is not None:
            facts |= {"subject": question.subject, "masks": clip_masks(clip, question.subject)}
        asked = (Media(kind="video", source=draw_clip(clip)), Text(text=question.text))
        return Sample(
            turns=(Turn(role="user", parts=asked), Turn(role="assistant", parts=(Text(text=question.answer),))),
            id=f"digit_video-{self.split}-{self.seed}-{index}",
            task="video_question",
            source="digit_video",
            facts=facts,
        )
