"""Questions about clips of moving digits."""

from typing import Any

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.data.digit_world.clip_questions import CLIP_KINDS, NAMINGS, ClipQuestion, ask_more, make_clip_question
from mmunify.data.digit_world.clips import Clip, clip_masks, draw_clip
from mmunify.data.digit_world.conversations import SPLITS, check_scenes
from mmunify.data.digit_world.drawing_lots import Lots
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Media, Sample, Text, Turn

ROLES = ("user", "assistant")


@DATASETS.register("digit_video")
class DigitVideo(Numbered):
    """One clip, and questions about what moves where, or what leaves or enters first, last, in which order.

    A direction is answered behind the digit's name, "red 7[left]", as a box is.

    Sample `index` is a pure function of (seed, split, index). Its facts: `kind` of the question, `answer`, the `clip`,
    and for questions about one digit its number `subject` and its `masks`, Bool[F H W]; with several turns, the `clip`.

    Args:
        split: "train" or "test" handwriting.
        kinds: kinds of questions (keys of `CLIP_KINDS`), or their weights; None = all of them.
        turns: questions about one clip, which then is encoded once for all of them; fewer where it leaves no more.
        seed: of all draws.
        length: number of samples.
        num_digits: numbers of digits that a clip may have.
        num_frames: of a clip.
        size: side of the frames in pixels.
        warp: strength (0..1) of random distortions of the handwriting, for training.
        named: how questions call a digit: one or more of "full" (purple 7), "number" (7) and "color" (purple digit).

    Raises:
        DataError: an unknown split, kind or naming, or a number out of range.
    """

    noun = "a digit video set"

    def __init__(
        self,
        split: str = "train",
        kinds: list[str] | dict[str, float] | None = None,
        turns: int = 1,
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3],
        num_frames: int = 8,
        size: int = 64,
        warp: float = 0.0,
        named: list[str] = ["full"],
    ) -> None:
        check_scenes(split, num_digits)
        self.kinds = Lots(list(CLIP_KINDS) if kinds is None else kinds, CLIP_KINDS, "kind of clip question")
        if not named or not set(named) <= set(NAMINGS):
            raise DataError(f"named wants one or more of {', '.join(NAMINGS)}; got {named}")
        super().__init__(length)
        self.task = "video_question" if turns == 1 else "multi"
        self.split, self.turns, self.seed = split, turns, seed
        self.num_digits, self.num_frames, self.size, self.warp = tuple(num_digits), num_frames, size, warp
        self.named = tuple(named)

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        hand = "train" if self.split == "train" else "test"
        clip, question = make_clip_question(
            rng, self.kinds.draw(rng), self.num_digits, hand, self.num_frames, self.size, self.warp, self.named
        )
        asked = [question, *ask_more(rng, clip, question, lambda: self.kinds.draw(rng), self.turns - 1, self.named)]
        shown = Media(kind="video", source=draw_clip(clip))
        said = [(Text(text=each.text), Text(text=each.answer)) for each in asked]
        turns = [Turn(role=role, parts=(text,)) for pair in said for role, text in zip(ROLES, pair, strict=True)]
        turns[0] = Turn(role="user", parts=(shown, *turns[0].parts))
        return Sample(
            turns=tuple(turns),
            id=f"digit_video-{self.split}-{self.seed}-{index}",
            task=self.task,
            source="digit_video",
            facts=_facts(clip, question) if self.turns == 1 else {"clip": clip},
        )


def _facts(clip: Clip, question: ClipQuestion) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": question.kind, "answer": question.answer, "clip": clip}
    if question.subject is not None:
        facts |= {"subject": question.subject, "masks": clip_masks(clip, question.subject)}
    return facts
