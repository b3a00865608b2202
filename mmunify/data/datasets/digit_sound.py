"""Dialled numbers, heard over a noisy line."""

import numpy as np

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
}
"""Kind of question -> how it is asked."""


def answer_of(dialling: Dialling, kind: str) -> str:
    """The answer to a question of one kind: the digits with blanks between them, or how many they are."""
    return dialling.number if kind == "number" else str(len(dialling.presses))


@DATASETS.register("digit_sound")
class DigitSound:
    """One sound of telephone tones, one question: which number was dialled, or how many digits it has.

    Sample `index` is a pure function of (seed, split, index). Its facts: `kind` of the question, `answer`, and the
    `dialling`. Sounds have 8000 samples per second.

    Args:
        split: "train" or "test": other numbers, other noise.
        kinds: kinds of questions ("number", "count"), or their weights.
        seed: of all draws.
        length: number of samples.
        num_digits: how many digits a number may have.
        seconds: length of the sounds.
        snr: lowest and highest signal to noise in dB.
        level: lowest and highest loudness in dB below full scale.

    Raises:
        DataError: an unknown split or kind, or a number out of range.
    """

    def __init__(
        self,
        split: str = "train",
        kinds: list[str] | dict[str, float] = ["number"],
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
        self.split, self.seed, self.length = split, seed, length
        self.num_digits, self.seconds = tuple(num_digits), seconds
        self.snr, self.level = _range("snr", snr), _range("level", level)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside 0..length - 1.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of a digit sound set with {self.length} samples")
        rng = np.random.default_rng([self.seed, index, SPLITS.index(self.split)])
        kind = self.kinds.draw(rng)
        number = self.num_digits[int(rng.integers(len(self.num_digits)))]
        dialling = make_dialling(rng, number, self.seconds, self.snr, self.level)
        heard = Media(kind="audio", source=(draw_sound(dialling), dialling.rate))
        answer = answer_of(dialling, kind)
        question = Turn(role="user", parts=(heard, Text(text=ask(rng, TONE_PHRASES[kind]))))
        return Sample(
            turns=(question, Turn(role="assistant", parts=(Text(text=answer),))),
            id=f"digit_sound-{self.split}-{self.seed}-{index}",
            task="dialled_number",
            source="digit_sound",
            facts={"kind": kind, "answer": answer, "dialling": dialling},
        )


def _range(name: str, given: list[float]) -> tuple[float, float]:
    if len(given) != 2 or not given[0] <= given[1]:
        raise DataError(f"{name}={list(given)}: give the lowest and the highest value in dB")
    return float(given[0]), float(given[1])
