"""Telephone tones with labels per moment: dense supervision for a tower that hears."""

import numpy as np

from mmunify.data.datasets._numbered import Numbered
from mmunify.data.digit_world.tones import Dialling
from mmunify.registry import DATASETS
from mmunify.types import Media, Output, Sample, Turn

SILENCE = 10
"""Label of moments between the keys."""


def label_moments(dialling: Dialling, step: float = 0.02) -> np.ndarray:
    """What is heard at moments `step` seconds apart, the first one at 0: float32 [moments 2].

    Columns: the digit whose key is down (`SILENCE` = none), and how many keys went down so far.
    """
    times = np.arange(round(dialling.seconds / step)) * step
    labels = np.stack([np.full(len(times), SILENCE), np.zeros(len(times))], axis=1).astype(np.float32)
    for press in dialling.presses:
        labels[(times >= press.start) & (times < press.start + press.seconds), 0] = press.digit
        labels[times >= press.start, 1] += 1
    return labels


@DATASETS.register("digit_tones")
class DigitTones(Numbered):
    """The sounds of `digit_sound`; an output of kind "tones" has `label_moments` as its target.

    Args:
        split: "train" or "test": other numbers, other noise.
        seed: of all draws.
        length: number of samples.
        num_digits: how many digits a number may have.
        seconds: length of the sounds.
        snr: lowest and highest signal to noise in dB.
        level: lowest and highest loudness in dB below full scale.
        step: seconds from one moment to the next.

    Raises:
        DataError: an unknown split, or a number out of range.
    """

    noun = "a tone set"
    task = "tones"

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        length: int = 100_000,
        num_digits: list[int] = [1, 2, 3, 4],
        seconds: float = 2.0,
        snr: list[float] = [10.0, 40.0],
        level: list[float] = [-30.0, -10.0],
        step: float = 0.02,
    ) -> None:
        super().__init__(length)
        line = {"num_digits": num_digits, "seconds": seconds, "snr": snr, "level": level}
        self.sounds = DATASETS.build({"name": "digit_sound", "split": split, "seed": seed, "length": length, **line})
        self.step, self.prefix = step, f"digit_tones-{split}-{seed}"

    def make(self, index: int) -> Sample:
        """Draw sample number `index`."""
        sample = self.sounds[index]
        heard = tuple(part for part in sample.turns[0].parts if isinstance(part, Media))
        labels = Output(kind="tones", target=label_moments(sample.facts["dialling"], self.step), condition=0)
        return Sample(
            turns=(Turn(role="user", parts=heard), Turn(role="assistant", parts=(labels,))),
            id=f"{self.prefix}-{index}",
            task=self.task,
            source="digit_tones",
            facts=sample.facts,
        )
