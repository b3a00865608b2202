"""A small diffusion model that draws pictures of a few pixels from features."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.canvas import LatentCanvas
from mmunify.layers.conditioned_unet import ConditionedUNet
from mmunify.layers.denoising import Known, Noising, no_items
from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.dropping import Drops, NullStates
from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.guidance import read_strengths
from mmunify.layers.latents import FoldedPixels
from mmunify.layers.part_folder import read_sizes, write_part
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths
from mmunify.layers.positions import sincos_2d
from mmunify.layers.weights import read_weights
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput

GRID_DIM, PLACES_DIM, HEAD_DIM = 64, 16, 32
SAMPLING = {"steps": 20, "guidance": 1.5}
CONV_IN = "unet.network.conv_in.weight"

Objective = Literal["flow_data", "flow", "epsilon", "v_prediction", "sample"]
Joins = Literal["cross_attention", "grid", "both"]


@DETOKENIZERS.register("tiny_diffusion")
class TinyDiffusionDetokenizer(Detokenizer):
    """The parts of `sdxl` at a size that learns on a CPU: folded pixels, a U-Net of two or three levels.

    Args:
        in_dim: width E of the features (given by the composer); they form a square raster.
        size: side of the pictures.
        fold: side of the squares of pixels that are one cell of the latent grid.
        dims: channels of the U-Net's levels, multiples of 32.
        joins: how the features come in: by "cross_attention", as in the papers; as a "grid" beside the noisy latents,
            so that a cell sees what lies at its own place; or "both".
        source: whether there are condition pictures (edits).
        objective: what is learned: the data ("flow_data") or the direction ("flow") of a flow, or a prediction of
            `DiffusionNoise`. Only the data is learned fast: cells of folded pixels hold more noise than the U-Net has
            channels for.
        training: see `TrainingOptions`.
        sampling: see `SamplingOptions`; by default 20 steps at strength 1.5.
        path: folder written by `save_folder`; its sizes win over the arguments here, but for `source`: pictures can be
            added to a model that knew none, and change nothing at first.

    Raises:
        UserError: sizes that don't fit, or a folder made for features of another width.
        RecipeError: unknown keys in `training` or `sampling`.
        CheckpointError: files that are missing or damaged.
    """

    def __init__(
        self,
        in_dim: int,
        size: int = 64,
        fold: int = 4,
        dims: list[int] = [64, 128],
        joins: Joins = "both",
        source: bool = False,
        objective: Objective = "flow_data",
        training: dict = {},
        sampling: dict = {},
        path: str | None = None,
    ) -> None:
        super().__init__()
        given = {"size": size, "fold": fold, "dims": list(dims), "joins": joins, "objective": objective}
        sizes = {"in_dim": in_dim, **given, "source": source}
        if path is not None:
            sizes = {**read_sizes(path, "tiny_diffusion", in_dim), "source": source}
        self.external, self.sizes = path, sizes
        self.training_options = read_options(TrainingOptions, training, "tiny_diffusion.training")
        self.sampling_options = read_options(SamplingOptions, {**SAMPLING, **sampling}, "tiny_diffusion.sampling")
        _check(sizes)
        latents = FoldedPixels(sizes["fold"])
        beside = PLACES_DIM + GRID_DIM * self._joins("grid")
        network = _unet(sizes, latents.channels + beside, latents.channels, self._joins("cross_attention"))
        self.unet = ConditionedUNet(network, latents.channels + beside, latents.channels * source)
        self.null = NullStates(in_dim, self.training_options.null)
        dim = sizes["dims"][-1]
        self.project = nn.Linear(in_dim, dim) if self._joins("cross_attention") else None
        self.spread = _spread(in_dim) if self._joins("grid") else None
        self.canvas = LatentCanvas(latents, _noising(sizes["objective"], self.training_options), sizes["size"])
        self.preprocess = self.canvas.preprocess
        if path is not None and torch.get_default_device().type != "meta":
            self._load(Path(path) / "model.safetensors")

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Squared error of what the U-Net predicts, summed over K pictures in 0..1."""
        if not len(target):
            return no_items(self, condition.states)
        return self.canvas.loss(target, condition, draw, self.unet, self._tell, self.training_options)

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1. `guidance`: strength of "condition" and "source".

        Raises:
            UserError: another strength, or a source picture for a model without `source`.
        """
        if condition.image is not None and not self.sizes["source"]:
            raise UserError("this tiny_diffusion starts from no picture; say source: true and train it on edits")
        given = read_strengths(guidance, strengths(self.sampling_options), "tiny_diffusion")
        return self.canvas.draw(condition, self.unet, self._tell, given, self.sampling_options.steps, seed)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json and model.safetensors, as `path:` reads them; float16 is loaded back as float32."""
        return write_part(folder, "tiny_diffusion", self.sizes, self.state_dict(), dtype)

    def _tell(self, condition: Condition, drops: Drops) -> Known:
        """What the U-Net is told of K items."""
        states = self.null(condition, drops[0])
        raster = _square(states)
        known: Known = {}
        beside = [self._places(states)]
        if self.spread is not None:
            beside.append(F.interpolate(self.spread(raster), size=self.canvas.shape[1:], mode="nearest"))
        if self.project is not None:
            sequence = self.project(states)
            places = sincos_2d((raster.shape[2], raster.shape[3]), sequence.shape[2], states.device)
            known["states"] = sequence + places.to(states.dtype)
        known["beside"] = torch.cat(beside, dim=1)
        if self.sizes["source"]:
            known["source"] = self.canvas.source(condition, drops[1])
        return known

    def _places(self, like: Float[Tensor, "K N E"]) -> Float[Tensor, "K P h w"]:
        """Where every cell lies: without it, cross-attention couldn't tell which features are its own."""
        grid = self.canvas.shape[1:]
        table = sincos_2d(grid, PLACES_DIM, like.device).to(like.dtype)
        return table.T.unflatten(1, grid).expand(len(like), -1, -1, -1)

    def _joins(self, way: str) -> bool:
        return self.sizes["joins"] in (way, "both")

    def _load(self, file: Path) -> None:
        tensors = read_weights(file)
        missing = self.state_dict()[CONV_IN].shape[1] - tensors[CONV_IN].shape[1]
        if missing > 0:  # a model without source pictures: their channels start at zero
            tensors[CONV_IN] = F.pad(tensors[CONV_IN], (0, 0, 0, 0, 0, missing))
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{file} doesn't fit the sizes in its config.json {self.sizes}: {error}") from error


def _square(states: Float[Tensor, "K N E"]) -> Float[Tensor, "K E rows rows"]:
    side = math.isqrt(states.shape[1])
    if side * side != states.shape[1]:
        raise DataError(
            f"tiny_diffusion reads features of a square raster, got {states.shape[1]} per picture; choose the head's "
            "num_queries, or the encoder, to match"
        )
    return states.transpose(1, 2).unflatten(2, (side, side))


def _spread(in_dim: int) -> nn.Sequential:
    """A cell of features as 2 x 2 cells that differ: copies would tell a convolution nothing of where inside it is."""
    return nn.Sequential(nn.Conv2d(in_dim, 4 * GRID_DIM, 1), nn.PixelShuffle(2))


def _check(sizes: Mapping[str, Any]) -> None:
    levels = 2 ** (len(sizes["dims"]) - 1)
    if sizes["size"] % (sizes["fold"] * levels):
        raise UserError(
            f"size={sizes['size']} of tiny_diffusion is no multiple of fold x 2^(levels - 1) = {sizes['fold'] * levels}"
        )
    if any(dim % 32 for dim in sizes["dims"]):
        raise UserError(f"dims of tiny_diffusion must be multiples of 32, got {sizes['dims']}")


def _unet(sizes: Mapping[str, Any], channels_in: int, channels_out: int, cross: bool) -> nn.Module:
    from diffusers import UNet2DConditionModel

    dims = sizes["dims"]
    down, up, middle = (
        ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "UNetMidBlock2DCrossAttn")
        if cross
        else ("DownBlock2D", "UpBlock2D", "UNetMidBlock2D")
    )
    return UNet2DConditionModel(
        sample_size=sizes["size"] // sizes["fold"],
        in_channels=channels_in,
        out_channels=channels_out,
        block_out_channels=tuple(dims),
        down_block_types=(down,) * len(dims),
        up_block_types=(up,) * len(dims),
        mid_block_type=middle,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=dims[-1],
        attention_head_dim=tuple(dim // HEAD_DIM for dim in dims),
    )


def _noising(objective: str, options: TrainingOptions) -> Noising:
    if objective.startswith("flow"):
        return FlowNoise(target="data" if objective == "flow_data" else "noise_minus_data")
    from diffusers import DDIMScheduler

    with torch.device("cpu"):
        scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    return DiffusionNoise(scheduler, objective, options.min_snr)  # type: ignore[arg-type]
