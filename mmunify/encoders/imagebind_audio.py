"""ImageBind's audio trunk: one vector per segment of a sound."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.encoders._audio_towers import hub_file
from mmunify.encoders._imagebind_trunk import NORM_EPS, TrunkBlock, from_public, to_public
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.rasters import repeat_layout
from mmunify.layers.sounds import SoundPreprocess
from mmunify.layers.weights import read_weights
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout

MEAN, STD = -4.268, 9.138
RATE = 16_000
SCALE = 20.0
"""Length of the vectors: ImageBind multiplies unit vectors by a fixed logit scale."""


@ENCODERS.register("imagebind_audio")
class ImageBindAudioEncoder(Encoder):
    """The audio side of ImageBind (https://arxiv.org/abs/2305.05665): K segments of 2 s, a vector of norm 20 for each.

    Overlapping patches of a log filter bank, a class token, blocks whose attention has one more learned key and value,
    then norm, projection and scaling of the class token. The defaults are the sizes of the published "huge" model;
    UnifiedMLLM hears 3 segments (https://arxiv.org/abs/2408.02503). Meta publishes its weights under CC BY-NC-SA 4.0;
    this module is written from the description alone and loads them if you have them.

    Args:
        path: folder, file or hub id of safetensors with the published names; None = random weights.
        num_segments: K.
        dim: width of the trunk.
        depth: number of blocks.
        num_heads: of every attention.
        out_dim: width of the vectors.
        size: bins and columns of a segment's filter bank.
        drop_path: of the last block, in training; it rises from 0 at the first one.
        channels: of stereo sounds, the "mean" or the "first" channel, which is what the published code reads.

    Raises:
        UserError: no segment.
        CheckpointError: files that are missing, damaged, or of other sizes.
    """

    def __init__(
        self,
        path: str | None = None,
        num_segments: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        out_dim: int = 1024,
        size: list[int] = [128, 204],
        drop_path: float = 0.1,
        channels: Literal["mean", "first"] = "mean",
    ) -> None:
        super().__init__()
        if num_segments < 1:
            raise UserError(f"imagebind_audio needs num_segments of at least 1, got {num_segments}")
        bins, columns = size
        self.out_dim, self.num_segments = out_dim, num_segments
        self.patches = nn.Conv2d(1, dim, 16, stride=10, bias=False)
        self.patch_norm = nn.LayerNorm(dim)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.num_tokens = 1 + ((bins - 16) // 10 + 1) * ((columns - 16) // 10 + 1)
        self.positions = nn.Parameter(torch.randn(1, self.num_tokens, dim) * 0.02)
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(TrunkBlock(dim, num_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.project = nn.Linear(dim, out_dim, bias=False)
        self.preprocess: SoundPreprocess = SoundPreprocess(
            size=(bins, columns),
            mean=(MEAN,),
            std=(STD,),
            sample_rate=RATE,
            num_segments=num_segments,
            samples=2 * RATE,
            channels=channels,
        )
        self.external = path
        if path is not None and torch.get_default_device().type != "meta":
            self._load(path)

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """One token per segment, whatever the length of the sound."""
        return repeat_layout(Layout.of(1), self.num_segments)

    def forward(self, values: Float[Tensor, "M K 1 B W"], context: Context) -> Features:
        """Filter banks of M sounds -> tokens (M, K, E) of norm 20, pooled (M, E): ImageBind's mean over segments."""
        states = self._tokens(values.flatten(0, 1))
        for block in self.blocks:
            states = block(states)
        vectors = self.project(self.norm(states[:, 0]))
        tokens = (SCALE * F.normalize(vectors, dim=-1)).unflatten(0, values.shape[:2])
        return Features(tokens=tokens, pooled=tokens.mean(dim=1), num_frames=tokens.shape[1])

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write `model.safetensors` in the published names."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in to_public(self.state_dict()).items()}
        save_file(tensors, folder / "model.safetensors")
        return folder

    def _tokens(self, banks: Float[Tensor, "R 1 B W"]) -> Float[Tensor, "R N E"]:
        """Class token, then the patches in raster order, with their positions."""
        patches = self.patch_norm(self.patches(banks).flatten(2).transpose(1, 2))
        return torch.cat([self.class_token.expand(len(banks), -1, -1), patches], dim=1) + self.positions

    def _load(self, path: str) -> None:
        file = hub_file(path, "model.safetensors")
        try:
            self.load_state_dict(from_public(read_weights(file)))
        except RuntimeError as error:
            raise CheckpointError(f"{file} holds no ImageBind audio trunk of these sizes: {error}") from error
