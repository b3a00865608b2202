"""A small diffusion model that draws pictures of a few pixels from features."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.canvas import LatentCanvas
from mmunify.layers.denoising import Known, Noising, no_items
from mmunify.layers.diffusion_noise import DiffusionNoise, Prediction
from mmunify.layers.dropping import Drops, NullStates
from mmunify.layers.flow_noise import UNITS, FlowNoise
from mmunify.layers.guidance import read_strengths
from mmunify.layers.latents import FoldedPixels, fit_pixels
from mmunify.layers.part_folder import read_sizes, write_part
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths
from mmunify.layers.positions import sincos_2d
from mmunify.layers.raster_unet import NearRasters, RasterUNet
from mmunify.layers.weights import read_weights
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput

PLACES_DIM = 16
SAMPLING = {"steps": 4, "guidance": 1.0, "source_guidance": 1.0}
SPREAD, DRAFTED_SPREAD = 0.3, 0.15
"""Standard deviation of pixels in -1..1, and of what a draft leaves of them."""

SHIFT = 2.0
"""Of a flow, see `FlowNoise`: it prefers noise, where the features decide."""

Joins = Literal["cross_attention", "grid", "both"]


@DETOKENIZERS.register("tiny_diffusion")
class TinyDiffusionDetokenizer(Detokenizer):
    """The parts of `sdxl` at a size that learns on a CPU: folded pixels, a U-Net of two or three levels.

    With a `draft`, a plain decoder guesses the picture, and the diffusion draws what the guess leaves open
    (https://arxiv.org/abs/2112.02475). Without one, noise hides from the U-Net for most of the training that its
    condition says anything.

    Args:
        in_dim: width E of the features (given by the composer); they form a square raster.
        size: side of the pictures.
        fold: side of the squares of pixels that are one cell of the latent grid.
        dims: channels of the U-Net's levels, multiples of 32.
        joins: how the features come in: by "cross_attention", as in the papers; as a "grid", so that a cell sees what
            lies at its own place; or "both".
        draft: a node of another de-tokenizer of the same features: `{name: pixel_decoder, path: ...}`. It learns from
            its own losses, if it learns.
        source: whether there are condition pictures (edits). It is also told how its features differ from theirs, where
            they are an encoder's: pixels alone hardly tell what an edit changes from what a draft can't draw.
        training: see `TrainingOptions`. Without a `prediction`, the data of a flow is learned, preconditioned as in
            https://arxiv.org/abs/2206.00364: the fastest here, since cells of folded pixels hold more noise than the
            U-Net has channels for.
        sampling: see `SamplingOptions`; by default 4 steps without guidance.
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
        joins: Joins = "grid",
        draft: dict | None = None,
        source: bool = False,
        training: dict = {},
        sampling: dict = {},
        path: str | None = None,
    ) -> None:
        super().__init__()
        given = {"size": size, "fold": fold, "dims": list(dims), "joins": joins, "draft": draft}
        sizes = {"in_dim": in_dim, **given, "prediction": training.get("prediction"), "source": source}
        if path is not None:
            sizes = {**read_sizes(path, "tiny_diffusion", in_dim), "source": source}
        self.external, self.sizes = path, sizes
        self.training_options = read_options(TrainingOptions, training, "tiny_diffusion.training")
        self.sampling_options = read_options(SamplingOptions, {**SAMPLING, **sampling}, "tiny_diffusion.sampling")
        _check(sizes)
        self.null = NullStates(in_dim, self.training_options.null)
        self.needs = self.null.needs | ({"image", "encoded_image"} if source else set())
        latents = FoldedPixels(sizes["fold"])
        self.draft = DETOKENIZERS.build(sizes["draft"], in_dim=in_dim) if sizes["draft"] else None
        attends, width = self._joins("cross_attention"), sizes["dims"][-1]
        self.project = nn.Linear(in_dim, width) if attends else None
        self.near = self._near(in_dim) if self._joins("grid") else None
        self.source_near = self._near(in_dim + 1, silent=True) if source else None
        beside, source_dim = PLACES_DIM + latents.channels * (self.draft is not None), latents.channels * source
        keeps = source and sizes["prediction"] is None
        self.unet = RasterUNet(latents.channels, beside, source_dim, sizes["dims"], width if attends else None, keeps)
        self.canvas = LatentCanvas(latents, _noising(sizes["prediction"], self.training_options), sizes["size"])
        self.preprocess = self.canvas.preprocess
        if path is not None and torch.get_default_device().type != "meta":
            self._load(Path(path) / "model.safetensors")

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Squared error of what the U-Net predicts, summed over K pictures in 0..1, and the losses of a draft."""
        if not len(target):
            return no_items(self, condition.states)
        made = self.canvas.loss(target, condition, draw, self._answer, self._tell, self.training_options)
        if self.draft is not None and _has_learners(self.draft, condition):
            _add_losses(made, self.draft.loss(fit_pixels(target, self.canvas.size), condition, draw), "draft")
        return made

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
        return self.canvas.draw(condition, self._answer, self._tell, given, self.sampling_options.steps, seed)

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write config.json and model.safetensors, as `path:` reads them; float16 is loaded back as float32."""
        sizes: dict[str, Any] = dict(self.sizes)
        if self.draft is not None:  # as the folder holds its weights, it is built from its sizes alone
            own = {key: value for key, value in self.draft.sizes.items() if key != "in_dim"}
            sizes["draft"] = {"name": sizes["draft"]["name"], **own}
        return write_part(folder, "tiny_diffusion", sizes, self.state_dict(), dtype)

    def _tell(self, condition: Condition, drops: Drops) -> Known:
        """What the U-Net is told of K items."""
        states = self.null(condition, drops[0])
        known: Known = {"places": self._places(states)}
        raster = _square(states)
        if self.draft is not None:
            with torch.no_grad():
                known["draft"] = self.canvas.latents.encode(self.draft.generate(replace(condition, states=states)))
        rasters = [] if self.near is None else [self.near(raster)]
        if self.source_near is not None:
            rasters.append(self._changes(self.source_near, raster, condition, drops))
        known |= {f"near{level}": torch.stack(each).sum(0) for level, each in enumerate(zip(*rasters, strict=True))}
        if self.project is not None:
            known["states"] = self.project(states)
        if self.sizes["source"]:
            known["source"] = self.canvas.source(condition, drops[1])
            known["has_source"] = self.canvas.has_source(condition) & ~drops[1]
        return known

    def _changes(
        self, near: NearRasters, raster: Float[Tensor, "K E h w"], condition: Condition, drops: Drops
    ) -> list[Tensor]:
        """How features differ from the source's, and how much, level by level; zeros where nothing is compared."""
        compared = self.canvas.has_source(condition) & ~drops[0] & ~drops[1] & (condition.encoded_image is not None)
        difference = raster - (raster if condition.encoded_image is None else _square(condition.encoded_image))
        changes = near(torch.cat([difference, difference.norm(dim=1, keepdim=True)], dim=1))
        return [torch.where(compared[:, None, None, None], each, 0.0) for each in changes]

    def _answer(self, sample: Tensor, time: Tensor, known: Known) -> Tensor:
        """The U-Net's answer, built upon the draft and what is kept of the source."""
        answer = self.unet(sample, time, known)
        if self.sizes["prediction"] is not None:
            return answer
        share = (time / UNITS).view(-1, 1, 1, 1).to(sample.dtype)
        answer, kept = answer.to(sample.dtype).tensor_split([sample.shape[1]], dim=1)
        base = _base(known, kept, sample)
        spread = DRAFTED_SPREAD if "draft" in known else SPREAD
        return base + _preconditioned(sample - (1 - share) * base, share, answer, spread)

    def _places(self, like: Float[Tensor, "K N E"]) -> Float[Tensor, "K P h w"]:
        """Where every cell lies."""
        grid = self.canvas.shape[1:]
        table = sincos_2d(grid, PLACES_DIM, like.device).to(like.dtype)
        return table.T.unflatten(1, grid).expand(len(like), -1, -1, -1)

    def _joins(self, way: str) -> bool:
        return self.sizes["joins"] in (way, "both")

    def _near(self, in_dim: int, silent: bool = False) -> NearRasters:
        dims, side = self.sizes["dims"], self.sizes["size"] // self.sizes["fold"]
        return NearRasters(in_dim, dims, [side // 2**level for level in range(len(dims))], silent=silent)

    def _load(self, file: Path) -> None:
        own = self.state_dict()
        added = {name: tensor for name, tensor in own.items() if "source_" in name}  # zero, where they are new
        try:
            self.load_state_dict({**added, **read_weights(file)})
        except RuntimeError as error:
            raise CheckpointError(f"{file} doesn't fit the sizes in its config.json {self.sizes}: {error}") from error


def _base(known: Known, kept: Tensor, like: Tensor) -> Tensor:
    """The draft, and between it and the source picture, where there is one, the share that is kept.

    An edit leaves most of a picture as it is. To say so takes one number per place; to draw it again from what came in
    takes all of the network's width.
    """
    draft = known["draft"].to(like.dtype) if "draft" in known else torch.zeros_like(like)
    if not kept.shape[1]:
        return draft
    there = known["has_source"].view(-1, 1, 1, 1).to(like.dtype)
    return draft + there * kept * (known["source"].to(like.dtype) - draft)


def _preconditioned(rest: Tensor, share: Tensor, answer: Tensor, spread: float) -> Tensor:
    """The data x of (1 - s) x + s e: what noise of share s and data of this spread tell of it, and the answer's part.

    Without noise the sample is the data, and in pure noise the answer is: a network needn't carry through what it sees.
    """
    total = ((1 - share) * spread) ** 2 + share**2
    return (1 - share) * spread**2 / total * rest + share * spread / total.sqrt() * answer


def _has_learners(draft: Detokenizer, condition: Condition) -> bool:
    """Whether a loss of the draft teaches anything: the draft, or whatever makes its states."""
    return condition.states.requires_grad or any(parameter.requires_grad for parameter in draft.parameters())


def _add_losses(made: HeadOutput, others: HeadOutput, name: str) -> None:
    made.losses.update({f"{name}_{key}": loss for key, loss in others.losses.items()})
    made.counts.update({f"{name}_{key}": count for key, count in others.counts.items()})


def _square(states: Float[Tensor, "K N E"]) -> Float[Tensor, "K E rows rows"]:
    side = math.isqrt(states.shape[1])
    if side * side != states.shape[1]:
        raise DataError(
            f"tiny_diffusion reads features of a square raster, got {states.shape[1]} per picture; choose the head's "
            "num_queries, or the encoder, to match"
        )
    return states.transpose(1, 2).unflatten(2, (side, side))


def _check(sizes: Mapping[str, Any]) -> None:
    levels = 2 ** (len(sizes["dims"]) - 1)
    if sizes["size"] % (sizes["fold"] * levels):
        raise UserError(
            f"size={sizes['size']} of tiny_diffusion is no multiple of fold x 2^(levels - 1) = {sizes['fold'] * levels}"
        )
    if any(dim % 32 for dim in sizes["dims"]):
        raise UserError(f"dims of tiny_diffusion must be multiples of 32, got {sizes['dims']}")


def _noising(prediction: Prediction | None, options: TrainingOptions) -> Noising:
    if prediction is None:
        return FlowNoise(target="data", shift=SHIFT)
    from diffusers import DDIMScheduler

    with torch.device("cpu"):
        scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    return DiffusionNoise(scheduler, prediction, options.min_snr)
