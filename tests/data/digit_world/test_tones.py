"""Telephone tones: a decoder that knows nothing of the plan reads the numbers back."""

from itertools import groupby

import numpy as np
import pytest

from mmunify.data.digit_world.tones import COLUMNS, KEYPAD, ROWS, Dialling, Press, draw_sound, make_dialling, tone_pair
from mmunify.errors import DataError


def decode(samples, rate):
    """The number by Goertzel filters over windows of 20 ms: an independent receiver."""
    size = rate // 50
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(float), size)[:: size // 4]
    times = np.arange(size) / rate
    waves = np.exp(-2j * np.pi * np.outer((*ROWS, *COLUMNS), times)) * np.hanning(size)
    power = np.abs(windows @ waves.T) ** 2
    low, high = power[:, :4].argmax(1), power[:, 4:].argmax(1)
    strength = np.minimum(power[:, :4].max(1), power[:, 4:].max(1))
    active = strength > 0.2 * np.quantile(strength, 0.97)
    keys = ["" if not on else KEYPAD[r][c] for on, r, c in zip(active, low, high, strict=True)]
    return " ".join(key for key, run in groupby(keys) if key and len(list(run)) > 2)


def test_frequencies_are_those_of_the_keypad():
    assert [tone_pair(digit) for digit in (1, 5, 9, 0)] == [(697, 1209), (770, 1336), (852, 1477), (941, 1336)]
    with pytest.raises(DataError, match="no key for 11"):
        tone_pair(11)


def test_an_independent_receiver_reads_the_numbers():
    rng = np.random.default_rng(0)
    read = []
    for _ in range(100):
        dialling = make_dialling(rng, int(rng.integers(1, 6)), snr=(20.0, 20.0))
        read.append(decode(draw_sound(dialling), dialling.rate) == dialling.number)
    assert np.mean(read) >= 0.95


def test_level_and_noise_are_what_the_plan_says():
    press = (Press(digit=5, start=0.5, seconds=1.0),)
    for level, snr in ((-10.0, 30.0), (-25.0, 10.0)):
        sound = draw_sound(Dialling(presses=press, level=level, snr=snr, twist=3.0)).astype(float)
        noise = np.mean(sound[:3900] ** 2)
        tone = np.mean(sound[4100:11_900] ** 2) - noise
        assert abs(10 * np.log10(tone) - level) < 0.2
        assert abs(10 * np.log10(tone / noise) - snr) < 0.5


def test_twist_is_between_the_two_tones():
    sound = draw_sound(Dialling(presses=(Press(digit=1, start=0.0, seconds=1.0),), seconds=1.0, twist=4.0, snr=80.0))
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    assert abs(10 * np.log10(spectrum[1209] / spectrum[697]) - 4.0) < 0.2


def test_sounds_are_plain_and_reproducible():
    dialling = make_dialling(np.random.default_rng(1), 3)
    first, second = draw_sound(dialling), draw_sound(dialling)
    assert first.dtype == np.float32 and first.shape == (16_000,) and np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, second)
    assert dialling.number == " ".join(str(press.digit) for press in dialling.presses)
    ends = [press.start + press.seconds for press in dialling.presses]
    assert dialling.presses[0].start >= 0 and ends[-1] <= 2.0
    assert all(press.start - end >= 0.059 for press, end in zip(dialling.presses[1:], ends, strict=False))


def test_too_many_digits_for_the_time():
    with pytest.raises(DataError, match=r"9 digits take up to 2\.52 s"):
        make_dialling(np.random.default_rng(0), 9)
    with pytest.raises(DataError, match="0 digits"):
        make_dialling(np.random.default_rng(0), 0)
