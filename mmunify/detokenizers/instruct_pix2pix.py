"""A U-Net that edits a source picture as signal tokens ask for."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.layers.canvas import LatentCanvas, picture_side
from mmunify.layers.conditioned_unet import ConditionedUNet, Trains
from mmunify.layers.denoising import Known, no_items
from mmunify.layers.diffusers_folder import load_latents, load_network, load_scheduler, require_keys
from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.dropping import Drops, NullStates
from mmunify.layers.empty_prompt import empty_prompt
from mmunify.layers.guidance import read_strengths
from mmunify.layers.interaction import Interaction
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths
from mmunify.layers.query_reader import QueryReader
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput

DROPS = {"drop": 0.05, "drop_source": 0.05, "drop_both": 0.05}
"""InstructPix2Pix drops each alone and both together equally often."""


@DETOKENIZERS.register("instruct_pix2pix")
class InstructPix2PixDetokenizer(Detokenizer):
    """InstructPix2Pix (https://arxiv.org/abs/2211.09800) behind a language model, as in SmartEdit and MGIE.

    A Q-Former turns the states of the signal tokens into what the text encoder said. With `interaction` these states
    and the source's features change each other (SmartEdit, https://arxiv.org/abs/2312.06739). The source's latents lie
    beside the noisy ones; a U-Net of 4 input channels is widened with zeros.

    Args:
        in_dim: width E of the condition's states (given by the composer).
        path: hub id or folder of a pipeline of diffusers (unet/, vae/, scheduler/; text_encoder/ for the empty prompt).
        config: as in `sdxl`.
        qformer: arguments of `QueryReader`.
        interaction: whether `Condition.features`, a raster of the source picture, is read.
        features_dim: width of these features; None = E.
        null: what stands in for a dropped instruction: the empty "prompt" (zeros where the folder has no text encoder),
            or what the Q-Former makes of "zeros" (MGIE).
        trains: what of the U-Net learns unless a stage says it; see `Trains`.
        training: see `TrainingOptions`; the default drops each condition and both with 0.05.
        sampling: see `SamplingOptions`.

    Raises:
        UserError: neither path nor config, or a U-Net whose input channels don't fit.
        RecipeError: unknown keys in `qformer`, `training` or `sampling`.
        CheckpointError: files that are missing or damaged.
    """

    added = ("qformer.*", "interaction.*", "null.*", "unet.network.conv_in.*")

    def __init__(
        self,
        in_dim: int,
        path: str | None = None,
        config: dict | None = None,
        qformer: dict = {},
        interaction: bool = True,
        features_dim: int | None = None,
        null: Literal["prompt", "zeros"] = "prompt",
        trains: Trains = "all",
        training: dict = {},
        sampling: dict = {},
    ) -> None:
        super().__init__()
        require_keys(config, "instruct_pix2pix")
        self.external = path
        self.training_options = read_options(TrainingOptions, {**DROPS, **training}, "instruct_pix2pix.training")
        self.sampling_options = read_options(SamplingOptions, sampling, "instruct_pix2pix.sampling")
        latents = load_latents(path, config, "instruct_pix2pix")
        network = load_network("unet", path, config, "instruct_pix2pix")
        self.unet = ConditionedUNet(network, latents.channels, latents.channels)
        self.unet.learn(trains)
        dim = self.unet.states_dim
        self.qformer = read_options(QueryReader, qformer, "instruct_pix2pix.qformer", in_dim=in_dim, out_dim=dim)
        self.interaction = Interaction(dim, features_dim or in_dim, self.unet.channels) if interaction else None
        self.null = NullStates(in_dim, self.training_options.null)
        self.needs = self.null.needs | {"image"} | ({"features"} if interaction else set())
        self._keep_prompt(path, null)
        noising = self._noising(path, config)
        side = picture_side(network, latents.factor, self.sampling_options.size)
        self.canvas = LatentCanvas(latents, noising, side)
        self.preprocess = self.canvas.preprocess

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Squared error of what the U-Net predicts, summed over K pictures in 0..1 (or over their cached latents)."""
        if not len(target):
            return no_items(self, condition.states)
        return self.canvas.loss(target, condition, draw, self.unet, self._tell, self.training_options)

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1. `guidance`: strength of "condition" and "source".

        Raises:
            UserError: another strength.
        """
        given = read_strengths(guidance, strengths(self.sampling_options), "instruct_pix2pix")
        return self.canvas.draw(condition, self.unet, self._tell, given, self.sampling_options.steps, seed)

    def _tell(self, condition: Condition, drops: Drops) -> Known:
        """What the U-Net is told of K items."""
        dropped, source_dropped = drops
        if self.empty_states is None:
            states = self.qformer(self.null(condition, dropped), condition.mask)
        else:
            states = self.qformer(condition.states, condition.mask)
            states = torch.where(dropped[:, None, None], self.empty_states, states)
        known: Known = {"source": self.canvas.source(condition, source_dropped)}
        if self.interaction is not None:
            kept = self.canvas.has_source(condition) & ~source_dropped
            size = self.canvas.shape[1:]
            states, known["residual"] = self.interaction(states, condition.features, kept, size)
        return {**known, "states": states}

    def _keep_prompt(self, path: str | None, null: str) -> None:
        """The empty prompt, as long as the Q-Former's answer.

        Raises:
            UserError: they differ in length.
        """
        self.empty_states: Tensor | None
        states = empty_prompt(path, self.unet.states_dim, None, "instruct_pix2pix")[0] if null == "prompt" else None
        self.register_buffer("empty_states", states)
        if states is not None and len(states) != self.qformer.num_queries:
            raise UserError(
                f"the empty prompt has {len(states)} states and the qformer {self.qformer.num_queries} queries; "
                f"say qformer: {{num_queries: {len(states)}}}, or null: zeros"
            )

    def _noising(self, path: str | None, config: Mapping[str, Any] | None) -> DiffusionNoise:
        scheduler = load_scheduler(path, config, "instruct_pix2pix")
        return DiffusionNoise(scheduler, self.training_options.prediction, self.training_options.min_snr)
