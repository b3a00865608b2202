"""Labels of moments: which key is down, and how many were."""

import numpy as np
import pytest

from mmunify.data.datasets.digit_tones import SILENCE, DigitTones, label_moments
from mmunify.data.digit_world.tones import Dialling, Press, tone_pair
from mmunify.types import Media, Output


def test_labels_of_a_number():
    presses = (Press(digit=4, start=0.04, seconds=0.06), Press(digit=0, start=0.15, seconds=0.05))
    labels = label_moments(Dialling(presses=presses, seconds=0.24))
    assert labels[:, 0].tolist() == [SILENCE] * 2 + [4] * 3 + [SILENCE] * 3 + [0] * 2 + [SILENCE] * 2
    assert labels[:, 1].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]


def test_the_tones_of_a_key_sound_where_its_label_is():
    sample = DigitTones("test", num_digits=[3], snr=[40.0, 40.0])[2]
    ((samples, rate),) = [part.source for part in sample.turns[0].parts]
    labels = sample.turns[1].parts[0].target
    for press in sample.facts["dialling"].presses:
        moments = np.flatnonzero(labels[:, 0] == press.digit)[1:-1]
        piece = samples[moments[0] * rate // 50 : (moments[0] + 1) * rate // 50]
        power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4096)) ** 2
        frequencies = np.arange(len(power)) * rate / 4096
        low, high = (frequencies[part][power[part].argmax()] for part in (frequencies < 1050, frequencies >= 1050))
        assert (low, high) == pytest.approx(tone_pair(press.digit), abs=40)


def test_samples():
    data = DigitTones(length=5, seed=3)
    (heard,), (output,) = (turn.parts for turn in data[4].turns)
    assert isinstance(heard, Media) and isinstance(output, Output) and output.kind == "tones"
    assert output.target.shape == (100, 2) and output.target.dtype == np.float32
    assert output.target[-1, 1] == len(data[4].facts["dialling"].presses)
    assert data[4].id == "digit_tones-train-3-4" and len(data) == 5
    with pytest.raises(IndexError, match="sample 5 of a tone set with 5 samples"):
        data[5]
