"""Qwen-VL's vision tower, which SEED-X uses as its visual tokenizer."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.encoders._pictures import single_frame
from mmunify.encoders._qwen_vit import from_public, to_public
from mmunify.encoders._towers import CLIP
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.attention_pool import AttentionPool
from mmunify.layers.rasters import resize_table
from mmunify.layers.vision_block import VisionBlock
from mmunify.layers.weights import read_weights
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout, Preprocess

NORM_EPS = 1e-6
TABLE = (16, 16)
"""Raster of the learned positions: that of the 224-pixel pictures that the tower first learned from."""


@ENCODERS.register("vit_attention_pool")
class ViTAttentionPoolEncoder(Encoder):
    """A vision transformer whose tokens are pooled by learnable queries (https://arxiv.org/abs/2308.12966).

    The defaults are ViT-bigG as in Qwen-VL and SEED-X (https://arxiv.org/abs/2404.14396): 1024 patches of a 448-pixel
    picture are pooled to 256 tokens of 4096, then a norm and a linear without bias. There is no class token.

    Args:
        path: a safetensors file, or a folder with `model.safetensors`, in the public checkpoints' names.
        size: height and width of the pictures.
        patch_size: side of a patch.
        dim: width of the blocks.
        depth: number of blocks.
        num_heads: heads of the blocks; the pooling layer has one per 128 of `out_dim`.
        hidden_dim: inside the feed-forwards.
        num_queries: tokens after the attention pool; a square number.
        out_dim: width of the tokens.
        pool: tokens that follow each other in the raster are averaged by so many: SEED-X's targets are 64 = 256 / 4
            tokens, a raster of 16 x 4.

    Raises:
        UserError: sizes that don't divide each other.
        CheckpointError: weights that are missing, damaged or of another shape.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int = 448,
        patch_size: int = 14,
        dim: int = 1664,
        depth: int = 48,
        num_heads: int = 16,
        hidden_dim: int = 8192,
        num_queries: int = 256,
        out_dim: int = 4096,
        pool: int = 1,
    ) -> None:
        super().__init__()
        self.out_dim, self.num_heads, self.average = out_dim, num_heads, pool
        self.patches = nn.Conv2d(3, dim, patch_size, stride=patch_size, bias=False)
        self.positions = nn.Parameter(torch.randn(TABLE[0] * TABLE[1], dim) * dim**-0.5)
        self.norm_before = nn.LayerNorm(dim, eps=NORM_EPS)
        self.blocks = nn.ModuleList(VisionBlock(dim, num_heads, hidden_dim, NORM_EPS) for _ in range(depth))
        self.pool = AttentionPool(dim, out_dim, num_queries, norm_eps=NORM_EPS)
        self.norm_after = nn.LayerNorm(out_dim, eps=NORM_EPS)
        self.proj = nn.Parameter(torch.randn(out_dim, out_dim) * out_dim**-0.5)
        rows, columns = self.pool.grid
        if columns % pool or size % patch_size:
            raise UserError(
                f"pool={pool} must divide the {columns} queries of a row, and patch_size={patch_size} the size {size}"
            )
        self._grid = (rows, columns // pool)
        self.external = path
        self.preprocess = Preprocess(size=(size, size), mean=CLIP.mean, std=CLIP.std, fit="stretch")
        if path is not None and torch.get_default_device().type != "meta":
            self._load(Path(path))

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The queries' raster, whatever the extent."""
        return Layout.of(self._grid[0] * self._grid[1], self._grid)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Pictures (M, 1, 3, H, W) -> tokens (M, N, E)."""
        raster = self.patches(single_frame(values, "vit_attention_pool"))
        grid = (raster.shape[2], raster.shape[3])
        states = self.norm_before(raster.flatten(2).transpose(1, 2) + resize_table(self.positions, TABLE, grid))
        for block in self.blocks:
            states = block(states)
        tokens = self.norm_after(self.pool(states, grid=grid)) @ self.proj
        return Features(tokens=pool_along(tokens, self.average), grid=self._grid)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write `model.safetensors` in the public checkpoints' names."""
        from safetensors.torch import save_file

        tensors = to_public(self.state_dict(), self.num_heads)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
        return folder

    def _load(self, path: Path) -> None:
        file = path if path.suffix == ".safetensors" else path / "model.safetensors"
        try:
            self.load_state_dict(from_public(read_weights(file), self.num_heads))
        except RuntimeError as error:
            raise CheckpointError(f"{file} holds another tower than this vit_attention_pool: {error}") from error


def pool_along(tokens: Float[Tensor, "M N E"], count: int) -> Float[Tensor, "M _ E"]:
    """Averages of `count` tokens that follow each other in raster order."""
    return tokens if count == 1 else F.avg_pool1d(tokens.transpose(1, 2), count, count).transpose(1, 2)
