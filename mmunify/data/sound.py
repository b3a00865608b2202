"""Reading sound: any source -> samples -> the spectrograms that an encoder wants. Bad files end in one clear error."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from mmunify.data.streams import open_container, readable_file
from mmunify.errors import DataError, MissingExtraError
from mmunify.extras import require
from mmunify.layers.sounds import SoundPreprocess
from mmunify.types import Source

MAX_NUMBERS = 2**28
"""Samples times channels beyond which a sound is refused (an hour and a half of stereo at 25 kHz takes 1 GB)."""

MAX_CHANNELS = 64
RATES = (1_000, 768_000)
"""Sampling rates in Hz outside of which a sound is refused."""

MAX_RATIO = 2**28
"""Largest product of two rates without their common factor: a resampling filter has about as many numbers."""

FLOOR = 1e-10
"""Power below which a spectrogram is silent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sound:
    """Samples of a sound.

    Attributes:
        samples: one row per channel, in -1..1.
        rate: sampling rate in Hz.
    """

    samples: Float32[np.ndarray, "C n"]
    rate: int

    @property
    def extent(self) -> tuple[int, int]:
        """(samples, 1): what stands where a picture has width and height."""
        return self.samples.shape[1], 1

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples.shape[1] / self.rate


def read_sound(source: Source) -> Sound:
    """A sound from a path, a `Sound`, or a pair (samples, rate) of an array [n] or [n C] and its sampling rate in Hz.

    Files are read by libsndfile (wav, flac, mp3, ogg ...); others, and the sound of videos, by PyAV if it is installed.
    Whole numbers are scaled to -1..1.

    Raises:
        DataError: missing, empty, too long, unreadable, without samples, or samples that are no numbers; the message
            names the file and the reason.
    """
    if isinstance(source, Sound):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        samples, rate = source
        return _checked(_as_floats(np.asarray(samples)), rate, "a sound")
    if not isinstance(source, str | Path):
        raise DataError(
            f"a sound is a path, or a pair (samples, rate); got {type(source).__name__}, which says nothing of its rate"
        )
    path = readable_file(source, "sound")
    return _checked(*_decode(path), f"sound {path}")


def prepare_sound(sound: Sound, preprocess: SoundPreprocess) -> Float[Tensor, "K 1 B W"]:
    """The normalised spectrograms of a sound's segments.

    Raises:
        DataError: two sampling rates that have almost nothing in common.
    """
    waveform = torch.from_numpy(sound.samples)
    waveform = waveform[0] if preprocess.channels == "first" else waveform.mean(dim=0)
    waveform = _resample(waveform, sound.rate, preprocess.sample_rate)
    bank = BANKS[preprocess.bank]
    segments = [waveform[start : start + preprocess.samples] for start in preprocess.starts(len(waveform))]
    values = torch.stack([bank(segment, preprocess) for segment in segments])
    return ((values - preprocess.mean[0]) / preprocess.std[0]).unsqueeze(1)


# ------------------------------------------------------------------------------------------- reading


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Samples [n C] and rate of a file."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames * file.channels > MAX_NUMBERS:
                raise DataError(
                    f"sound {path} has {file.frames} samples of {file.channels} channels, more than the limit of "
                    f"{MAX_NUMBERS} numbers; cut it into pieces"
                )
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.SoundFileError as error:
        return _decode_container(path, error)


def _decode_container(path: Path, reason: Exception) -> tuple[np.ndarray, int]:
    """The best sound stream of a container that libsndfile doesn't know."""
    try:
        with open_container(path, "sound") as container:
            stream = container.streams.best("audio")
            if stream is None:
                streams = ", ".join(found.type for found in container.streams) or "none"
                raise DataError(f"sound {path} cannot be read: it has no sound among its streams ({streams})")
            return _decode_stream(container, stream), stream.rate
    except MissingExtraError as error:
        raise DataError(f"sound {path} cannot be read: {reason}; to read other formats and videos, {error}") from reason


def _decode_stream(container: Any, stream: Any) -> np.ndarray:
    to_floats = require("av", "sound input").AudioResampler(format="fltp")
    frames = [piece for frame in container.decode(stream) for piece in to_floats.resample(frame)]
    pieces = [piece.to_ndarray() for piece in [*frames, *to_floats.resample(None)]]
    return np.concatenate(pieces, axis=1).T if pieces else np.zeros((0, 1), np.float32)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    """[n C] float32; whole numbers are scaled by their type's range."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise DataError(f"samples of a sound are [n] or [n C] of at most {MAX_CHANNELS} channels; got {samples.shape}")
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise DataError(f"samples of a sound are floats in -1..1, uint8 or signed whole numbers; got {samples.dtype}")
    return samples.astype(np.float32)


def _checked(samples: np.ndarray, rate: Any, title: str) -> Sound:
    if not samples.size:
        raise DataError(f"{title} is empty: it has no samples")
    number = float(rate) if isinstance(rate, int | float | np.integer | np.floating) else math.nan
    if number % 1 or not RATES[0] <= number <= RATES[1]:
        raise DataError(
            f"{title} has a sampling rate of {rate} Hz; whole numbers of {RATES[0]}..{RATES[1]} Hz are read"
        )
    wrong = int((~np.isfinite(samples)).sum())
    if wrong:
        raise DataError(f"{title} holds {wrong} samples of {samples.size} that are no finite numbers (NaN or infinite)")
    return Sound(samples=np.ascontiguousarray(samples.T), rate=round(number))


def _resample(waveform: Float[Tensor, "n"], rate: int, wanted: int) -> Float[Tensor, "m"]:
    from torchaudio.functional import resample

    common = math.gcd(rate, wanted)
    if rate * wanted // common**2 > MAX_RATIO:
        raise DataError(
            f"a sound of {rate} Hz cannot be brought to the {wanted} Hz of its encoder: the rates have only {common} "
            "as common factor; store it at a usual rate"
        )
    return resample(waveform, rate, wanted)


# ------------------------------------------------------------------------------------------- spectrograms


def _kaldi(segment: Float[Tensor, "n"], preprocess: SoundPreprocess) -> Float[Tensor, "B W"]:
    from torchaudio.compliance import kaldi

    rate, (num_bins, columns) = preprocess.sample_rate, preprocess.size
    segment = F.pad(segment, (0, max(0, preprocess.window - len(segment))))  # at least one window
    bank = kaldi.fbank(
        segment[None],
        sample_frequency=rate,
        frame_length=1000 * preprocess.window / rate,
        frame_shift=1000 * preprocess.hop / rate,
        low_freq=preprocess.band[0],
        high_freq=preprocess.band[1],
        num_mel_bins=num_bins,
        window_type="hanning",
        htk_compat=True,
        dither=0.0,
    ).T[:, :columns]
    return F.pad(bank, (0, columns - bank.shape[1]))


def _whisper(segment: Float[Tensor, "n"], preprocess: SoundPreprocess) -> Float[Tensor, "B W"]:
    padded = F.pad(segment, (0, preprocess.samples - len(segment)))
    decades = _bins(padded, preprocess, "slaney")[:, :-1].clamp(min=FLOOR).log10()
    return (decades.maximum(decades.max() - 8) + 4) / 4


def _clap(segment: Float[Tensor, "n"], preprocess: SoundPreprocess) -> Float[Tensor, "B W"]:
    return _decibels(segment, preprocess, "slaney")


def _clap_fusion(segment: Float[Tensor, "n"], preprocess: SoundPreprocess) -> Float[Tensor, "B W"]:
    return _decibels(segment, preprocess, "htk")


BANKS: dict[str, Callable[[Tensor, SoundPreprocess], Tensor]] = {
    "kaldi": _kaldi,
    "whisper": _whisper,
    "clap": _clap,
    "clap_fusion": _clap_fusion,
}
"""Name of a spectrogram -> what makes it of one segment."""


def _decibels(segment: Float[Tensor, "n"], preprocess: SoundPreprocess, scale: str) -> Float[Tensor, "B W"]:
    repeated = segment.repeat(preprocess.samples // len(segment))
    padded = F.pad(repeated, (0, preprocess.samples - len(repeated)))
    power = _bins(padded.double(), preprocess, scale)  # double: decibels of quiet bins are sensitive
    return (10 * power.clamp(min=FLOOR).log10()).float()


def _bins(segment: Float[Tensor, "n"], preprocess: SoundPreprocess, scale: str) -> Float[Tensor, "B W"]:
    """Power in every bin of every window; windows are centred, the sound is mirrored at its ends."""
    window = torch.hann_window(preprocess.window, dtype=segment.dtype)
    waves = torch.stft(segment, preprocess.window, preprocess.hop, window=window, return_complex=True)
    filters = _filters(preprocess.window, preprocess.size[0], preprocess.sample_rate, preprocess.band, scale)
    return filters.to(segment.dtype) @ waves.abs().square()


@cache
def _filters(
    window: int, num_bins: int, rate: int, band: tuple[float, float], scale: str
) -> Float[Tensor, "bins frequencies"]:
    from torchaudio.functional import melscale_fbanks

    norm = "slaney" if scale == "slaney" else None
    return melscale_fbanks(window // 2 + 1, *band, num_bins, rate, norm=norm, mel_scale=scale).T.contiguous()
