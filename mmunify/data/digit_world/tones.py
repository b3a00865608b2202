"""Telephone tones: every digit is a pair of frequencies (DTMF, ITU-T Q.23), dialled into a noisy line.

A `Dialling` is plain data and sounding it is a pure function.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from mmunify.errors import DataError

ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)
"""Frequencies in Hz of the keypad's rows and columns."""

KEYPAD = ("123", "456", "789", "*0#")
RATE = 8000
"""Telephone lines carry 8000 samples per second."""

PRESS, PAUSE = (0.07, 0.16), (0.06, 0.12)
"""Shortest and longest press of a key, and pause after it, in seconds."""

RAMP = 0.004
"""Seconds in which a tone swells and fades: no clicks."""

TWIST = 4.0
"""Largest difference in dB between the two tones of a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """One key: a digit, when it goes down and how long it is held, in seconds."""

    digit: int
    start: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialling:
    """A number on a line.

    Attributes:
        presses: in order.
        seconds: length of the sound.
        level: power of the tones in dB below full scale (a sine of amplitude 1 has -3).
        twist: by how many dB the higher tone of a key is louder than the lower one.
        snr: power of the tones over that of the noise, in dB.
        noise: seed of the noise and of the tones' phases.
        rate: samples per second.
    """

    presses: tuple[Press, ...]
    seconds: float = 2.0
    level: float = -15.0
    twist: float = 0.0
    snr: float = 20.0
    noise: int = 0
    rate: int = RATE

    @property
    def number(self) -> str:
        """The digits in order, with blanks: "4 7 1"."""
        return " ".join(str(press.digit) for press in self.presses)


def tone_pair(digit: int) -> tuple[int, int]:
    """The two frequencies of a digit in Hz, the lower one first.

    Raises:
        DataError: no digit.
    """
    row = next((index for index, keys in enumerate(KEYPAD) if str(digit) in keys), None)
    if row is None or not 0 <= digit <= 9:
        raise DataError(f"no key for {digit!r}: expected 0..9")
    return ROWS[row], COLUMNS[KEYPAD[row].index(str(digit))]


def draw_sound(dialling: Dialling) -> Float32[np.ndarray, "n"]:
    """The samples of a dialled number with its noise; what exceeds full scale is clipped, as lines do."""
    rng = np.random.default_rng(dialling.noise)
    length = round(dialling.seconds * dialling.rate)
    sound = np.zeros(length)
    for press in dialling.presses:
        start = round(press.start * dialling.rate)
        tone = _tone(press, dialling, rng)[: length - start]
        sound[start : start + len(tone)] += tone
    hiss = rng.standard_normal(length) * 10 ** ((dialling.level - dialling.snr) / 20)
    return np.clip(sound + hiss, -1, 1).astype(np.float32)


def make_dialling(
    rng: np.random.Generator,
    num_digits: int = 4,
    seconds: float = 2.0,
    snr: tuple[float, float] = (10.0, 40.0),
    level: tuple[float, float] = (-30.0, -10.0),
) -> Dialling:
    """Draw a number, how it is dialled, and the line.

    Args:
        rng: all randomness comes from here.
        num_digits: how many.
        seconds: length of the sound.
        snr: range of signal to noise in dB.
        level: range of loudness in dB below full scale.

    Raises:
        DataError: so many digits do not fit into that time.
    """
    longest = num_digits * (PRESS[1] + PAUSE[1])
    if num_digits < 1 or longest > seconds:
        raise DataError(
            f"{num_digits} digits take up to {longest:.2f} s: give seconds={seconds} more time, or dial fewer"
        )
    held, pauses = rng.uniform(*PRESS, num_digits), rng.uniform(*PAUSE, num_digits)
    first = rng.uniform(0, seconds - float((held + pauses).sum()))
    starts = first + np.concatenate([[0.0], np.cumsum(held + pauses)[:-1]])
    keys = zip(rng.integers(0, 10, num_digits).tolist(), starts.tolist(), held.tolist(), strict=True)
    presses = [Press(digit=digit, start=start, seconds=length) for digit, start, length in keys]
    return Dialling(
        presses=tuple(presses),
        seconds=seconds,
        level=float(rng.uniform(*level)),
        twist=float(rng.uniform(-TWIST, TWIST)),
        snr=float(rng.uniform(*snr)),
        noise=int(rng.integers(2**31)),
    )


def _tone(press: Press, dialling: Dialling, rng: np.random.Generator) -> np.ndarray:
    """Both tones of one key, at the line's level together."""
    times = np.arange(round(press.seconds * dialling.rate)) / dialling.rate
    gains = 10 ** (np.array([-0.5, 0.5]) * dialling.twist / 20)
    amplitudes = gains * np.sqrt(2 / (gains**2).sum()) * 10 ** (dialling.level / 20)
    phases = rng.uniform(0, 2 * np.pi, 2)
    waves = np.sin(2 * np.pi * np.array(tone_pair(press.digit))[:, None] * times + phases[:, None])
    ramp = np.clip(np.minimum(times, press.seconds - times) / RAMP, 0, 1)
    return (amplitudes[:, None] * waves).sum(axis=0) * ramp
