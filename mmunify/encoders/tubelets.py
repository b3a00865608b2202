"""What happens at each place of a clip: one token per place, made of that place in all frames."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.encoders._moments import tubes
from mmunify.errors import CheckpointError, UserError
from mmunify.layers.part_folder import read_sizes, write_part
from mmunify.layers.query_reader import QueryReader
from mmunify.layers.vision_block import VisionBlock
from mmunify.layers.weights import read_weights
from mmunify.parts import Context, Encoder
from mmunify.registry import ENCODERS
from mmunify.types import Features, Layout

INSIDE = "encoder."
"""Names of the wrapped encoder's tensors begin so; its own folder holds them."""


@ENCODERS.register("tubelets")
class TubeletEncoder(Encoder):
    """Tokens of one place in all frames join to one token, then attention blocks mix the places.

    The tubelet embedding of ViViT (https://arxiv.org/abs/2103.15691), over an encoder's features instead of pixels: a
    clip takes no more slots than a picture, and what moves where can be read at every place that it crosses. Learned
    queries may gather the places into a few tokens, one per object where they were trained to.

    Args:
        encoder: node of an encoder of clips whose frames have a raster (`frames`).
        dim: width of the tokens.
        depth: number of blocks; 0 = none.
        num_heads: of their attention.
        num_queries: tokens into which all places are gathered; 0 = the places are the tokens.
        path: folder written by `save_folder`, with the tubelets' weights and sizes, which win over the arguments here;
            the wrapped encoder's weights come from its own path.

    Raises:
        UserError: an encoder without frames of one raster, or a folder made for features of another width.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        encoder: Encoder,
        dim: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        num_queries: int = 0,
        path: str | None = None,
    ) -> None:
        super().__init__()
        grid, num_frames = _raster(encoder)
        in_dim = num_frames * encoder.out_dim
        self.sizes: dict[str, Any] = {"in_dim": in_dim, "dim": dim, "depth": depth, "num_heads": num_heads}
        self.sizes |= {"num_queries": num_queries}
        if path is not None:
            self.sizes |= read_sizes(path, "tubelets", in_dim)
        dim, num_heads = self.sizes["dim"], self.sizes["num_heads"]
        self.encoder, self.grid, self.external = encoder, grid, path
        self.out_dim, self.preprocess = dim, encoder.preprocess
        self.project = nn.Linear(in_dim, dim)
        self.places = nn.Parameter(torch.randn(grid[0] * grid[1], dim) * 0.02)
        self.blocks = nn.Sequential(*(VisionBlock(dim, num_heads) for _ in range(self.sizes["depth"])))
        self.norm = nn.LayerNorm(dim)
        self.num_queries = self.sizes["num_queries"]
        self.gather = QueryReader(dim, dim, self.num_queries, dim, 2, num_heads, 1) if self.num_queries else None
        if path is not None and torch.get_default_device().type != "meta":
            self._load(Path(path) / "model.safetensors")

    def layout(self, extent: tuple[int, int] | None = None) -> Layout:
        """The raster of one frame, or the queries."""
        if self.num_queries:
            return Layout.of(self.num_queries)
        return Layout.of(self.grid[0] * self.grid[1], self.grid)

    def forward(self, values: Float[Tensor, "M F C H W"], context: Context) -> Features:
        """Clips -> tokens (M, N, E) of the N places of a frame or of N queries, pooled (M, E): the places' mean."""
        frames = self.encoder(values, context)
        states = self.project(tubes(frames.tokens, self.grid)) + self.places
        tokens = self.norm(self.blocks(states))
        pooled = tokens.mean(dim=1)
        if self.gather is not None:
            return Features(tokens=self.gather(tokens), pooled=pooled)
        return Features(tokens=tokens, grid=self.grid, pooled=pooled)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json and model.safetensors of all but the wrapped encoder."""
        return write_part(folder, "tubelets", self.sizes, self._own(), dtype)

    def _own(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(INSIDE)}

    def _load(self, file: Path) -> None:
        given, own = read_weights(file), self._own()
        if {name: tensor.shape for name, tensor in given.items()} != {name: own[name].shape for name in own}:
            raise CheckpointError(f"{file} doesn't fit the sizes in its config.json {self.sizes}, or other frames")
        self.load_state_dict(given, strict=False)


def _raster(encoder: Encoder) -> tuple[tuple[int, int], int]:
    """Raster of a frame, and the number of frames."""
    runs = [run for run in encoder.layout(None).runs if run.slots]
    grid = runs[0].grid
    if grid is None or any(run.grid != grid for run in runs):
        raise UserError(f"tubelets needs frames of one raster; {type(encoder).__name__} has the runs {runs}")
    return grid, sum(run.slots for run in runs) // (grid[0] * grid[1])
