"""Sounds as numbers: which segments of a sound an encoder hears, and as what spectrogram."""

from dataclasses import dataclass
from typing import Literal

from mmunify.types import Preprocess

Bank = Literal["kaldi", "whisper", "clap", "clap_fusion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPreprocess(Preprocess):
    """A sound becomes K segments, each a spectrogram of `size` = (bins, columns).

    Segments begin at evenly spaced places, the first one at 0 and the last one a segment's length before the end; they
    overlap where the sound is short. One that is shorter than a segment is filled up as the bank's model was trained:

    - "kaldi": log filter bank of the Kaldi recipe (ImageBind, AST); missing columns are zeros, before normalisation;
    - "whisper": log10 of Slaney's bins, the loudest 8 decades of a segment; silence follows;
    - "clap", "clap_fusion": decibels of Slaney's or of HTK's bins; the sound is repeated as often as it fits, silence
      follows. Fused CLAP models take the second one.

    Attributes:
        kind: of the node.
        size: bins and columns of a spectrogram.
        mean, std: of its values, one number each.
        bank: see above.
        sample_rate: in Hz; sounds are resampled to it.
        num_segments: K.
        samples: length of a segment, at `sample_rate`.
        window, hop: of the short-time Fourier transform, in samples.
        band: lowest and highest frequency of the bins in Hz.
        channels: of stereo and more, the "mean", or the "first" one (as ImageBind's code reads it).
    """

    kind: str = "audio"
    size: tuple[int, int] = (128, 204)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bank: Bank = "kaldi"
    sample_rate: int = 16_000
    num_segments: int = 1
    samples: int = 32_000
    window: int = 400
    hop: int = 160
    band: tuple[float, float] = (20.0, 8000.0)
    channels: Literal["mean", "first"] = "mean"

    def starts(self, length: int) -> list[int]:
        """Where the segments of a sound of `length` samples begin."""
        spare = max(length - self.samples, 0)
        return [spare * k // max(self.num_segments - 1, 1) for k in range(self.num_segments)]
