"""Dialled numbers, heard over a noisy line."""

from collections.abc import Callable

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.data.digit_world.conversations import SPLITS
from mmunify.data.digit_world.drawing_lots import Lots
from mmunify.data.digit_world.tones import PAUSE, PRESS, Dialling, draw_sound, make_dialling
from mmunify.data.digit_world.words import ask
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Media, Sample, Text, Turn

TONE_PHRASES = {
    "number": ("Which number was dialled?", "What number was dialled?", "Which number do you hear?"),
    "count": ("How many digits were dialled?", "How many digits do you hear?"),
    "first": ("Which digit was dialled first?",),
    "last": ("Which digit was dialled last?",),
}
"""Kind of question -> how it is asked."""

ANSWERS: dict[str, Callable[[Dialling], str]] = {
    "number": lambda dialling: dialling.number,
    "count": lambda dialling: str(len(dialling.presses)),
    "first": lambda dialling: str(dialling.presses[0].digit),
    "last": lambda dialling: str(dialling.presses[-1].digit),
}
"""Kind of question -> its answer; a number's digits have blanks between them."""


@DATASETS.register("digit_sound")
class DigitSound(Numbered):
    """One sound of telephone tones, one question: which number was dialled, how many digits it has, which came when.

    Sample `index` is a pure function of (seed, split, index). Its facts: `kind` of the question, `answer`, and the
    `dialling`. Sounds have 8000 samples per second.

    Args:
        split: "train" or "test": other numbers, other noise.
        kinds: kinds of questions (keys of `TONE_PHRASES`), or their weights.
        turns: questions about one sound, of different kinds.
        seed: of all draws.
        length: number of samples.
        num_digits: how many digits a number may have.
        seconds: length of the sounds.
        snr: lowest and highest signal to noise in dB.
        level: lowest and highest loudness in dB below full scale.

    Raises:
        DataError: an unknown split or kind, or a number out of range.
    """

    noun = "a digit sound set"

    def __init__(
        self,
        split: str = "train",
        kinds: list[str] | dict[str, float] = ["number"],
        turns: int = 1,
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3, 4],
        seconds: float = 2.0,
        snr: list[float] = [10.0, 40.0],
        level: list[float] = [-30.0, -10.0],
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r} of the dialled numbers; choose one of {SPLITS}")
        most = int(seconds / (PRESS[1] + PAUSE[1]))
        if not num_digits or not all(1 <= number <= most for number in num_digits):
            raise DataError(f"num_digits={list(num_digits)}: {seconds} s have room for 1 to {most} digits")
        self.kinds = Lots(kinds, TONE_PHRASES, "kind of sound question")
        super().__init__(length)
        self.task = "dialled_number" if turns == 1 else "multi"
        self.split, self.turns, self.seed = split, turns, seed
        self.num_digits, self.seconds = tuple(num_digits), seconds
        self.snr, self.level = _range("snr", snr), _range("level", level)

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        first = self.kinds.draw(rng)
        number = self.num_digits[int(rng.integers(len(self.num_digits)))]
        dialling = make_dialling(rng, number, self.seconds, self.snr, self.level)
        heard = Media(kind="audio", source=(draw_sound(dialling), dialling.rate))
        others = [kind for kind in self.kinds.names if kind != first]
        kinds = [first, *(str(kind) for kind in rng.permutation(others)[: self.turns - 1])]
        turns: list[Turn] = []
        for kind in kinds:
            asked = Text(text=ask(rng, TONE_PHRASES[kind]))
            turns.append(Turn(role="user", parts=(asked,) if turns else (heard, asked)))
            turns.append(Turn(role="assistant", parts=(Text(text=ANSWERS[kind](dialling)),)))
        facts = {"kind": first, "answer": ANSWERS[first](dialling)} if self.turns == 1 else {}
        return Sample(
            turns=tuple(turns),
            id=f"digit_sound-{self.split}-{self.seed}-{index}",
            task=self.task,
            source="digit_sound",
            facts={**facts, "dialling": dialling},
        )


def _range(name: str, given: list[float]) -> tuple[float, float]:
    if len(given) != 2 or not given[0] <= given[1]:
        raise DataError(f"{name}={list(given)}: give the lowest and the highest value in dB")
    return float(given[0]), float(given[1])
