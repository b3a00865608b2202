"""Audio towers of transformers: Whisper, CLAP, AST."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.encoders._audio_towers import AST, CLAP, WHISPER, AudioTower, build_audio_tower
from mmunify.encoders._moments import join_moments
from mmunify.errors import UserError
from mmunify.layers.rasters import repeat_layout
from mmunify.layers.sounds import SoundPreprocess
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout


@ENCODERS.register("hf_audio")
class HFAudioEncoder(Encoder):
    """The last states of an audio tower, segment by segment. Which tower, the folder's configuration says:

    - Whisper's encoder (https://arxiv.org/abs/2212.04356): tokens along time;
    - CLAP's audio tower (https://arxiv.org/abs/2211.06687): a raster of frequency x time, and a pooled vector. Sounds
      longer than a segment are heard in several of them instead of at random places, so fused models fuse nothing;
    - AST (https://arxiv.org/abs/2104.01778): a raster of frequency x time without its two class tokens, whose mean is
      the pooled vector.

    A segment is what the tower was trained on: 30 s for Whisper, 10 s for CLAP and AST.

    Args:
        path: hub id or folder of a tower or of a whole model around it.
        config: `model_type` and arguments of the tower's configuration, for random weights where there is no path; with
            a path, it describes the tower where no weights are read (on the meta device).
        num_segments: K segments at evenly spaced places of the sound.
        dtype: of the weights; the answer has the type of the values.

    Raises:
        UserError: neither path nor config, a model of another type, or no segment.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self, path: str | None = None, config: dict | None = None, num_segments: int = 1, dtype: str = "float32"
    ) -> None:
        super().__init__()
        if num_segments < 1:
            raise UserError(f"hf_audio needs num_segments of at least 1, got {num_segments}")
        tower = build_audio_tower(path, config, num_segments, dtype)
        self.model, self.external = tower.model, path
        self.preprocess: SoundPreprocess = tower.preprocess
        self.num_segments = num_segments
        self._extractor = tower.kind.extractor
        self._read = READERS[tower.kind.tower]
        self._segment: Layout = LAYOUTS[tower.kind.tower](tower)
        self.out_dim: int = OUT_DIMS[tower.kind.tower](tower.model.config)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """A segment's tokens, once per segment, whatever the length of the sound."""
        return repeat_layout(self._segment, self.num_segments)

    def forward(self, values: Float[Tensor, "M K 1 B W"], context: Context) -> Features:
        """Spectrograms of M sounds -> tokens (M, K N, E), pooled (M, E) where the tower has such a vector."""
        num_items, num_segments = values.shape[:2]
        weight = next(self.model.parameters())
        segments = self._read(self.model, values.flatten(0, 1).to(weight.dtype), self._segment.runs[0].grid)
        return join_moments(segments, num_items, num_segments).to(values.dtype)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write the tower and the settings of its feature extractor as `save_pretrained` does."""
        import copy

        import transformers

        copy.deepcopy(self.model).to(dtype).save_pretrained(folder)
        getattr(transformers, self._extractor)(**self._extractor_settings()).save_pretrained(folder)
        return Path(folder)

    def _extractor_settings(self) -> dict[str, Any]:
        numbers = self.preprocess
        shared = {"sampling_rate": numbers.sample_rate}
        if self._extractor == AST.extractor:
            normal = {"mean": numbers.mean[0], "std": numbers.std[0] / 2}
            return {**shared, **normal, "num_mel_bins": numbers.size[0], "max_length": numbers.size[1]}
        seconds, bins = numbers.samples // numbers.sample_rate, numbers.size[0]
        if self._extractor == WHISPER.extractor:
            made = {"n_fft": numbers.window, "hop_length": numbers.hop, "chunk_length": max(1, seconds)}
            return {**shared, **made, "feature_size": bins}
        made = {"fft_window_size": numbers.window, "hop_length": numbers.hop, "max_length_s": seconds}
        low, high = numbers.band
        truncation = "fusion" if numbers.bank == "clap_fusion" else "rand_trunc"
        band = {"frequency_min": low, "frequency_max": high, "truncation": truncation}
        return {**shared, **made, **band, "feature_size": bins}


# ------------------------------------------------------------------------------------------- one function per tower


def _read_whisper(model: Any, banks: Float[Tensor, "R 1 B W"], grid: tuple[int, int] | None) -> Features:
    return Features(tokens=model(banks[:, 0]).last_hidden_state)


def _read_ast(model: Any, banks: Float[Tensor, "R 1 B W"], grid: tuple[int, int] | None) -> Features:
    states = model(banks[:, 0].transpose(1, 2))
    return Features(tokens=states.last_hidden_state[:, 2:], grid=grid, pooled=states.pooler_output)


def _read_clap(model: Any, banks: Float[Tensor, "R 1 B W"], grid: tuple[int, int] | None) -> Features:
    is_longer = torch.zeros(len(banks), 1, dtype=torch.bool, device=banks.device)
    states = model(banks.transpose(2, 3), is_longer=is_longer)
    tokens = states.last_hidden_state.flatten(2).transpose(1, 2)
    return Features(tokens=tokens, grid=grid, pooled=states.pooler_output)


def _whisper_layout(tower: AudioTower) -> Layout:
    return Layout.of(tower.model.config.max_source_positions)


def _ast_layout(tower: AudioTower) -> Layout:
    rows, columns = tower.model.embeddings.get_shape(tower.model.config)
    return Layout.of(rows * columns, (rows, columns))


def _clap_layout(tower: AudioTower) -> Layout:
    """CLAP folds its spectrogram into a square, encodes it, and unfolds the last raster again."""
    inner = tower.model.audio_encoder
    side = inner.input_resolutions[-1][0]
    rows = max(1, side // inner.freq_ratio)
    return Layout.of(side * side, (rows, side * side // rows))


READERS: dict[str, Callable[[Any, Tensor, tuple[int, int] | None], Features]] = {
    WHISPER.tower: _read_whisper,
    AST.tower: _read_ast,
    CLAP.tower: _read_clap,
}
LAYOUTS: dict[str, Callable[[AudioTower], Layout]] = {
    WHISPER.tower: _whisper_layout,
    AST.tower: _ast_layout,
    CLAP.tower: _clap_layout,
}
OUT_DIMS: dict[str, Callable[[Any], int]] = {
    WHISPER.tower: lambda config: config.d_model,
    AST.tower: lambda config: config.hidden_size,
    CLAP.tower: lambda config: config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1),
}
