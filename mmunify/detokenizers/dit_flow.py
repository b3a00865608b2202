"""A diffusion transformer that draws by flow matching."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.layers.canvas import LatentCanvas, picture_side
from mmunify.layers.denoising import Known, no_items
from mmunify.layers.diffusers_folder import has_folder, load_latents, load_network, load_scheduler, require_keys
from mmunify.layers.dropping import Drops, NullStates
from mmunify.layers.flow_connector import FlowConnector
from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.guidance import read_strengths
from mmunify.layers.part_options import SamplingOptions, TrainingOptions, read_options, strengths
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput

WIDTHS = {"SanaTransformer2DModel": "caption_channels", "Lumina2Transformer2DModel": "cap_feat_dim"}
"""Transformers of diffusers that are known, and where their configuration holds the width of the condition."""

SAMPLING = {"steps": 30, "guidance": 3.0}


@DETOKENIZERS.register("dit_flow")
class DiTFlowDetokenizer(Detokenizer):
    """Flow matching with a transformer of diffusers, as Sana behind MetaQuery (https://arxiv.org/abs/2504.06256) and
    BLIP3-o (https://arxiv.org/abs/2505.09568).

    Args:
        in_dim: width E of the condition's states (given by the composer).
        path: hub id or folder of a pipeline of diffusers (transformer/, vae/, scheduler/).
        config: arguments of "transformer", "vae" and "scheduler", for random weights where there is no path;
            `fold: n` in place of "vae" draws on squares of n x n pixels.
        connector: arguments of `FlowConnector`.
        flow: arguments of `FlowNoise`: the direction of time (`one`), the `target`, `times`, `shift`, `time_scale`.
        trains: whether the transformer learns, unless a stage says it.
        training: see `TrainingOptions` (`prediction` and `min_snr` belong to diffusion and are refused).
        sampling: see `SamplingOptions`; by default 30 steps at strength 3.

    Raises:
        UserError: neither path nor config, or a transformer that isn't known.
        RecipeError: unknown keys in the groups of arguments.
        CheckpointError: files that are missing or damaged.
    """

    added = ("connector.*", "null.*")

    def __init__(
        self,
        in_dim: int,
        path: str | None = None,
        config: dict | None = None,
        connector: dict = {},
        flow: dict = {},
        trains: Literal["all", "none"] = "all",
        training: dict = {},
        sampling: dict = {},
    ) -> None:
        super().__init__()
        require_keys(config, "dit_flow")
        self.external = path
        self.training_options = read_options(TrainingOptions, training, "dit_flow.training")
        self.sampling_options = read_options(SamplingOptions, {**SAMPLING, **sampling}, "dit_flow.sampling")
        _refuse_diffusion(self.training_options)
        self.transformer: Any = load_network("transformer", path, config, "dit_flow")
        self.transformer.requires_grad_(trains == "all")
        width = _condition_width(self.transformer)
        self.connector = read_options(FlowConnector, connector, "dit_flow.connector", in_dim=in_dim, out_dim=width)
        self.null = NullStates(in_dim, self.training_options.null)
        self.needs = self.null.needs
        latents = load_latents(path, config, "dit_flow")
        side = picture_side(self.transformer, latents.factor, self.sampling_options.size)
        self.canvas = LatentCanvas(latents, _noising(path, config, flow), side)
        self.preprocess = self.canvas.preprocess

    def forward(
        self, sample: Float[Tensor, "K c h w"], time: Float[Tensor, "K"], known: Known
    ) -> Float[Tensor, "K c h w"]:
        """The direction that the transformer answers for a noisy sample."""
        return self.transformer(
            hidden_states=sample,
            timestep=time,
            encoder_hidden_states=known["states"],
            encoder_attention_mask=known["mask"],
            return_dict=False,
        )[0]

    def loss(self, target: Float[Tensor, "K C H W"], condition: Condition, draw: Draw) -> HeadOutput:
        """Squared error of the direction, summed over K pictures in 0..1 (or over their cached latents)."""
        if not len(target):
            return no_items(self, condition.states)
        return self.canvas.loss(target, condition, draw, self, self._tell, self.training_options)

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K C H W"]:
        """Pixels in 0..1. `guidance`: strength of "condition".

        Raises:
            UserError: another strength.
        """
        defaults = {"condition": strengths(self.sampling_options)["condition"]}
        given = read_strengths(guidance, defaults, "dit_flow")
        return self.canvas.draw(condition, self, self._tell, given, self.sampling_options.steps, seed)

    def _tell(self, condition: Condition, drops: Drops) -> Known:
        """What the transformer is told of K items."""
        states = self.connector(self.null(condition, drops[0]), condition.mask)
        mask = condition.mask
        real = torch.ones(states.shape[:2], dtype=torch.long, device=states.device) if mask is None else mask.long()
        return {"states": states, "mask": real}


def _condition_width(transformer: Any) -> int:
    name = type(transformer).__name__
    if name not in WIDTHS:
        raise UserError(f"dit_flow doesn't know how to call {name}; it knows {', '.join(WIDTHS)}")
    return int(transformer.config[WIDTHS[name]])


def _noising(path: str | None, config: Mapping[str, Any] | None, flow: Mapping[str, Any]) -> FlowNoise:
    """The flow's noise; it samples with the pipeline's scheduler, where there is one."""
    given = has_folder(path, "scheduler") or "scheduler" in (config or {})
    default = "FlowMatchEulerDiscreteScheduler"
    scheduler = load_scheduler(path, config, "dit_flow", default) if given else None
    return read_options(FlowNoise, flow, "dit_flow.flow", scheduler=scheduler)


def _refuse_diffusion(options: TrainingOptions) -> None:
    if options.prediction is not None or options.min_snr is not None:
        raise UserError("training of dit_flow takes no prediction and no min_snr; its target is set by flow: target")
