"""A latent-diffusion U-Net that draws from a picture's features in place of text."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmunify.errors import DataError, UserError
from mmunify.layers.canvas import LatentCanvas, picture_side
from mmunify.layers.condition_resampler import ConditionResampler
from mmunify.layers.conditioned_unet import ConditionedUNet, Trains, picture_scale, picture_sizes
from mmunify.layers.denoising import Known, no_items
from mmunify.layers.diffusers_folder import load_latents, load_network, load_scheduler, require_keys
from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.dropping import Drops, NullStates
from mmunify.layers.empty_prompt import empty_prompt
from mmunify.layers.guidance import read_strengths
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput


@DETOKENIZERS.register("sdxl")
class SDXLDetokenizer(Detokenizer):
    """SEED-X' de-tokenizer (https://arxiv.org/abs/2404.14396) over SDXL or any U-Net of the SD-1.5 and SD-2 layouts.

    A resampler turns features into the sequence (and, for SDXL, the pooled vector) that text encoders gave. Stage 1
    trains it with the U-Net's keys and values; stage 2, with `source`, puts the latents of a condition picture beside
    the noisy ones and trains the whole U-Net. A U-Net with `source` starts as the one without, so both stages can be
    trained in one composition. `learns:` of a stage overrules `trains`; the autoencoder never learns
    (`"!*.autoencoder.*"`).

    Args:
        in_dim: width E of the features (given by the composer).
        path: hub id or folder of a pipeline of diffusers (unet/, vae/, scheduler/).
        config: arguments of "unet", "vae" and "scheduler", for random weights where there is no path; `fold: n` in
            place of "vae" draws on squares of n x n pixels.
        joins: "replace" = the features stand where text stood; "decoupled" = text keeps its place, the features get
            keys and values of their own (IP-Adapter, https://arxiv.org/abs/2308.06721). Text is `Condition.caption`
            (and `pooled`), or the empty prompt: what the folder's text encoders say, or zeros where it has none.
        source: whether there are condition pictures (stage 2).
        trains: what of the U-Net learns unless a stage says it; see `Trains`.
        resampler: arguments of `ConditionResampler`.
        training: see `TrainingOptions`.
        sampling: see `SamplingOptions`.

    Raises:
        UserError: neither path nor config, or a U-Net whose input channels don't fit.
        RecipeError: unknown keys in `resampler`, `training` or `sampling`.
        CheckpointError: files that are missing or damaged.
    """

    added = ("resampler.*", "null.*", "unet.network.conv_in.*", "*_ip.*")

    def __init__(
        self,
        in_dim: int,
        path: str | None = None,
        config: dict | None = None,
        joins: Literal["replace", "decoupled"] = "replace",
        source: bool = False,
        trains: Trains = "keys_values",
        resampler: dict = {},
        training: dict = {},
        sampling: dict = {},
    ) -> None:
        super().__init__()
        require_keys(config, "sdxl")
        self.external, self.joins, self.with_source = path, joins, source
        self.training_options = read_options(TrainingOptions, training, "sdxl.training")
        self.sampling_options = read_options(SamplingOptions, sampling, "sdxl.sampling")
        latents = load_latents(path, config, "sdxl")
        decoupled = joins == "decoupled"
        network = load_network("unet", path, config, "sdxl")
        self.unet = ConditionedUNet(network, latents.channels, latents.channels * source, decoupled)
        self.unet.learn("none" if decoupled and trains == "keys_values" else trains)
        self.resampler = self._resampler(in_dim, resampler, decoupled)
        self.null = NullStates(in_dim, self.training_options.null)
        self.needs = self.null.needs | ({"image"} if source else set())
        self.canvas = self._canvas(latents, path, config)
        self.preprocess = self.canvas.preprocess
        self._keep_text(path, decoupled)

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Squared error of what the U-Net predicts, summed over K pictures in 0..1 (or over their cached latents)."""
        if not len(target):
            return no_items(self, condition.states)
        return self.canvas.loss(target, condition, draw, self.unet, self._tell, self.training_options)

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1. `guidance`: strength of "condition" and "source"; "picture", in 0..1, of decoupled keys.

        Raises:
            UserError: another strength, or a source picture for a U-Net without `source`.
        """
        self._check(condition)
        defaults = {**strengths(self.sampling_options), "picture": 1.0}
        given = read_strengths(guidance, defaults, "sdxl")
        with picture_scale(self.unet, given["picture"]):
            return self.canvas.draw(condition, self.unet, self._tell, given, self.sampling_options.steps, seed)

    def _tell(self, condition: Condition, drops: Drops) -> Known:
        """What the U-Net is told of K items."""
        sequence, pooled = self.resampler(self.null(condition, drops[0]), condition.mask)
        known: Known = {"states": sequence}
        if self.joins == "decoupled":
            known = self._beside_text(condition, sequence, drops[0])
        if self.unet.pooled_dim is not None:
            known["sizes"] = picture_sizes(*self.canvas.size, like=condition.states)
            if pooled is not None:
                known["pooled"] = pooled
        if self.with_source:
            known["source"] = self.canvas.source(condition, drops[1])
        return known

    def _beside_text(self, condition: Condition, sequence: Float[Tensor, "K Q C"], dropped: Bool[Tensor, "K"]) -> Known:
        """The caption beside the features; the empty prompt where there is none, and where the condition is dropped."""
        known: Known = {"states": _said(condition.caption, self.empty_states, dropped), "picture": sequence}
        if self.empty_pooled is not None:
            known["pooled"] = _said(condition.pooled, self.empty_pooled, dropped)
        return known

    def _check(self, condition: Condition) -> None:
        if condition.image is not None and not self.with_source:
            raise UserError("this sdxl de-tokenizer starts from no picture; say source: true and train stage 2")

    def _resampler(self, in_dim: int, options: Mapping[str, Any], decoupled: bool) -> ConditionResampler:
        runtime = {
            "in_dim": in_dim,
            "out_dim": self.unet.states_dim,
            "pooled_dim": None if decoupled else self.unet.pooled_dim,
            "final_norm": decoupled,
        }
        return read_options(ConditionResampler, options, "sdxl.resampler", **runtime)

    def _canvas(self, latents: Any, path: str | None, config: Mapping[str, Any] | None) -> LatentCanvas:
        options = self.training_options
        noising = DiffusionNoise(load_scheduler(path, config, "sdxl"), options.prediction, options.min_snr)
        side = picture_side(self.unet.network, latents.factor, self.sampling_options.size)
        return LatentCanvas(latents, noising, side)

    def _keep_text(self, path: str | None, decoupled: bool) -> None:
        """The empty prompt, beside which decoupled keys and values work."""
        self.empty_states: Tensor
        self.empty_pooled: Tensor | None
        if decoupled:
            states, pooled = empty_prompt(path, self.unet.states_dim, self.unet.pooled_dim, "sdxl")
            self.register_buffer("empty_states", states)
            self.register_buffer("empty_pooled", pooled)


def _said(caption: Tensor | None, empty: Tensor, dropped: Bool[Tensor, "K"]) -> Float[Tensor, "K ..."]:
    """What text encoders say of the captions, or of the empty prompt."""
    nothing = empty.expand(len(dropped), *empty.shape)
    if caption is None:
        return nothing
    if caption.shape != nothing.shape:
        found = tuple(caption.shape[1:])
        raise DataError(f"a caption's states of shape {found} came; the pipeline's are {tuple(empty.shape)}")
    return torch.where(dropped.view(-1, *[1] * empty.ndim), nothing, caption)
