"""Sound: every source, every way of being broken, and the published models' own spectrograms."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmunify.data.sound import Sound, prepare_sound, read_sound
from mmunify.errors import DataError
from mmunify.layers.sounds import SoundPreprocess

REAL = Path(__file__).parents[3] / "shared/fixtures/meta-pytorch+torchcodec/test/resources"
IMAGEBIND = SoundPreprocess(size=(128, 204), mean=(-4.268,), std=(9.138,), num_segments=3)
RNG = np.random.default_rng(0)


def tone(seconds=1.0, rate=16_000, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def real(name):
    if not (REAL / name).is_file():
        pytest.skip(f"the real file {name} is not on this machine")
    return REAL / name


# ------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files(tmp_path, suffix, channels):
    samples = np.stack([tone(hertz=440 * (c + 1)) for c in range(channels)], axis=1)
    soundfile.write(tmp_path / f"a.{suffix}", samples, 16_000)
    sound = read_sound(tmp_path / f"a.{suffix}")
    assert (sound.rate, sound.samples.shape[0]) == (16_000, channels)
    assert sound.extent[1] == 1 and abs(sound.seconds - 1) < 0.1
    tolerance = 1e-4 if suffix in ("wav", "flac") else 0.1
    assert np.abs(sound.samples[:, 2000:12_000] - samples.T[:, 2000:12_000]).mean() < tolerance


def test_arrays_carry_their_rate():
    samples = RNG.uniform(-1, 1, (100, 2)).astype(np.float32)
    sound = read_sound((samples, 8000))
    np.testing.assert_array_equal(sound.samples, samples.T)
    assert read_sound((samples[:, 0].astype(np.float64), 8000.0)).extent == (100, 1)
    assert read_sound(sound) is sound


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8])
def test_whole_numbers_are_scaled(kind):
    info = np.iinfo(kind)
    samples = read_sound((np.array([info.min, (info.min + info.max + 1) // 2, info.max], kind), 8000)).samples
    np.testing.assert_allclose(samples[0], [-1, 0, 1], atol=0.01)


def test_the_sound_of_a_video():
    pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    sound = read_sound(real("nasa_13013.mp4"))
    assert sound.samples.shape[0] == 2 and sound.rate in (8000, 16_000, 44_100, 48_000)
    assert 12 < sound.seconds < 15 and np.abs(sound.samples).max() > 0.01


def test_a_real_mp3():
    sound = read_sound(real("nasa_13013.mp4.audio.mp3"))
    assert (sound.rate, sound.samples.shape[0], round(sound.seconds)) == (8000, 2, 13)
    assert prepare_sound(sound, IMAGEBIND).shape == (3, 1, 128, 204)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.zeros(0, np.float32), 8000), "a sound is empty: it has no samples"),
        ((np.zeros((0, 2), np.float32), 8000), "is empty"),
        ((np.array([0, np.nan, np.inf]), 8000), r"holds 2 samples of 3 that are no finite numbers"),
        ((np.zeros(9), 0), "sampling rate of 0 Hz"),
        ((np.zeros(9), 8000.5), "sampling rate of 8000.5 Hz"),
        ((np.zeros(9), None), "sampling rate of None Hz"),
        ((np.zeros((2, 8000)), 8000), r"\[n\] or \[n C\].*got \(2, 8000\)"),
        ((np.zeros(9, complex), 8000), "got complex128"),
        (np.zeros(9), "a pair .samples, rate.; got ndarray"),
        ("nowhere.wav", r"sound nowhere\.wav does not exist"),
    ],
)
def test_bad_sounds_say_why(source, message):
    with pytest.raises(DataError, match=message):
        read_sound(source)


def test_bad_files_are_named(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    (tmp_path / "no.wav").write_bytes(b"RIFF and nothing behind it")
    (tmp_path / "zero.wav").touch()
    for name, reason in {"empty": "no samples", "nan": "NaN", "no": "cannot be read", "zero": "0 bytes"}.items():
        with pytest.raises(DataError, match=rf"sound .*{name}\.wav.*{reason}"):
            read_sound(tmp_path / f"{name}.wav")


def test_a_truncated_file_is_read_as_far_as_it_goes_or_named(tmp_path):
    soundfile.write(tmp_path / "a.flac", RNG.uniform(-1, 1, 40_000), 16_000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    try:
        assert 0 < read_sound(tmp_path / "a.flac").extent[0] <= 40_000
    except DataError as error:
        assert "a.flac" in str(error)


def test_too_long_is_said_before_it_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros((500, 2)), 8000)
    monkeypatch.setattr("mmunify.data.sound.MAX_NUMBERS", 999)
    with pytest.raises(DataError, match="500 samples of 2 channels, more than the limit of 999"):
        read_sound(tmp_path / "a.wav")


def test_without_pyav_unknown_formats_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"a\.m4a cannot be read: .*pip install 'mmunify\[video\]'"):
        read_sound(tmp_path / "a.m4a")


def test_a_video_without_sound_is_named(tmp_path):
    av = pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    with pytest.raises(DataError, match=r"mute\.mp4 cannot be read: it has no sound among its streams \(video\)"):
        read_sound(tmp_path / "mute.mp4")


# ------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_all_usual_rates_end_in_the_same_bins(rate):
    values = prepare_sound(read_sound((tone(2.5, rate, 1000.0), rate)), IMAGEBIND)
    assert values.shape == (3, 1, 128, 204)
    wanted = prepare_sound(read_sound((tone(2.5, 16_000, 1000.0), 16_000)), IMAGEBIND)
    loudest = values[:, 0, :, 20:180].mean(dim=2).argmax(dim=1)
    assert torch.equal(loudest, wanted[:, 0, :, 20:180].mean(dim=2).argmax(dim=1))
    peak = values[0, 0, loudest[0], 20:180].mean()
    assert abs(peak - wanted[0, 0, loudest[0], 20:180].mean()) < 0.02


def test_rates_without_a_common_factor_are_refused():
    with pytest.raises(DataError, match="44101 Hz cannot be brought to the 16000 Hz"):
        prepare_sound(read_sound((np.zeros(9), 44_101)), IMAGEBIND)


def test_imagebinds_numbers():
    """(log filter bank, zeros up to 204 columns) - mean, / std: of each of three segments of 2 s."""
    from torchaudio.compliance import kaldi

    samples = RNG.normal(0, 0.1, 80_000).astype(np.float32)
    values = prepare_sound(read_sound((samples, 16_000)), IMAGEBIND)
    for segment, start in zip(values[:, 0], (0, 24_000, 48_000), strict=True):
        wave = torch.from_numpy(samples[start : start + 32_000])[None]
        bank = kaldi.fbank(
            wave - wave.mean(), htk_compat=True, sample_frequency=16_000, window_type="hanning", num_mel_bins=128
        ).T
        assert bank.shape == (128, 198)
        # every window loses its own mean, so that of the segment makes no difference but rounding
        torch.testing.assert_close(segment[:, :198] * 9.138 - 4.268, bank, atol=1e-3, rtol=0)
        assert torch.allclose(segment[:, 198:], torch.tensor(4.268 / 9.138))


@pytest.mark.parametrize("length", [1, 100, 399, 400, 8000, 31_999])
def test_sounds_shorter_than_a_segment_are_filled_up(length):
    values = prepare_sound(read_sound((RNG.normal(0, 0.1, length), 16_000)), IMAGEBIND)
    columns = max(0, length - 400) // 160 + 1
    assert values.isfinite().all() and torch.equal(values[0], values[2])
    assert torch.allclose(values[:, :, :, columns:], torch.tensor(4.268 / 9.138))
    assert not torch.allclose(values[:, :, :, columns - 1], torch.tensor(4.268 / 9.138))


def test_silence_is_finite_and_everywhere_the_same():
    for bank in ("kaldi", "whisper", "clap"):
        numbers = SoundPreprocess(bank=bank, size=(64, 201), samples=32_000, window=400, hop=160)
        values = prepare_sound(read_sound((np.zeros(32_000), 16_000)), numbers)
        assert values.isfinite().all()
        assert torch.unique(values[..., :190]).numel() == 1


def test_stereo_is_mixed_or_its_first_channel_is_taken():
    left, right = tone(hertz=440.0), tone(hertz=2000.0)
    both = read_sound((np.stack([left, right], axis=1), 16_000))
    mixed = prepare_sound(both, IMAGEBIND)
    torch.testing.assert_close(mixed, prepare_sound(read_sound(((left + right) / 2, 16_000)), IMAGEBIND))
    first = SoundPreprocess(size=(128, 204), mean=(-4.268,), std=(9.138,), num_segments=3, channels="first")
    torch.testing.assert_close(prepare_sound(both, first), prepare_sound(read_sound((left, 16_000)), IMAGEBIND))


def test_a_sound_is_plain_data():
    sound = Sound(samples=np.zeros((2, 100), np.float32), rate=50_000)
    assert (sound.extent, sound.seconds) == ((100, 1), 0.002)
