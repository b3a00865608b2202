"""Signal tokens mapped into the text space of a pipeline that stays as it is."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import CheckpointError, DataError, UserError
from mmunify.layers.denoising import Noised, denoising_loss, no_items
from mmunify.layers.diffusers_folder import load_network, load_scheduler
from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.guidance import read_strengths
from mmunify.layers.latents import CodedLatents, fit_pixels
from mmunify.layers.part_options import SamplingOptions, read_options
from mmunify.layers.streams import Streams
from mmunify.layers.text_mapper import TextMapper
from mmunify.parts import Detokenizer, Draw
from mmunify.registry import DETOKENIZERS
from mmunify.types import Condition, HeadOutput, Preprocess

LENGTHS = {"image": 77, "video": 77, "audio": 1}
"""States of the text encoders: CLIP's tokens, or CLAP's one vector."""

SAMPLING = {"steps": 50, "guidance": 7.5}


@DETOKENIZERS.register("sd_text_space")
class SDTextSpaceDetokenizer(Detokenizer):
    """GILL (https://arxiv.org/abs/2305.17216) and NExT-GPT (https://arxiv.org/abs/2309.05519): only a mapper learns.

    It learns to say what the pipeline's text encoder says of the caption (`Condition.caption`), and, if
    `denoising_weight` is above 0, to let the frozen network denoise the target.

    Args:
        in_dim: width E of the states of the signal tokens (given by the composer).
        path: hub id or folder of a pipeline of diffusers: Stable Diffusion 1.5 or 2, text-to-video (zeroscope),
            AudioLDM.
        kind: what the pipeline makes.
        mapper: arguments of `TextMapper`; by default as long as the text encoder's answer.
        caption_weight: of the distance to the caption's states, per state; 0 = captions aren't read.
        caption_distance: "euclidean" (both public codes) or "mse" (the squared one of the papers).
        denoising_weight: of the denoising loss; 0 = targets aren't read.
        min_snr: see `DiffusionNoise`.
        sampling: see `SamplingOptions` (its `source_guidance` and `size` aren't read).

    Raises:
        UserError: SDXL's layout, which needs a pooled vector, or both weights 0.
        RecipeError: unknown keys in `mapper` or `sampling`.
        CheckpointError: files that are missing or damaged.
    """

    added = ("mapper.*",)

    def __init__(
        self,
        in_dim: int,
        path: str,
        kind: Literal["image", "video", "audio"] = "image",
        mapper: dict = {},
        caption_weight: float = 1.0,
        caption_distance: Literal["euclidean", "mse"] = "euclidean",
        denoising_weight: float = 0.0,
        min_snr: float | None = None,
        sampling: dict = {},
    ) -> None:
        super().__init__()
        if not caption_weight and not denoising_weight:
            raise UserError("sd_text_space has nothing to learn from: caption_weight and denoising_weight are both 0")
        self.external, self.kind, self.caption_distance = path, kind, caption_distance
        self.weights = {"caption": caption_weight, "denoising": denoising_weight}
        self.needs, self.reads_target = frozenset({"caption"} if caption_weight else ()), denoising_weight > 0
        self.sampling_options = read_options(SamplingOptions, {**SAMPLING, **sampling}, "sd_text_space.sampling")
        self.pipeline, self.parts = _load(path)
        self.parts.requires_grad_(False)
        self.unet: Any = self.parts["unet"]
        runtime = {"in_dim": in_dim, "out_dim": _text_width(self.unet, kind)}
        options = {"num_queries": LENGTHS[kind], **mapper}
        self.mapper = read_options(TextMapper, options, "sd_text_space.mapper", **runtime)
        self.latents = CodedLatents(self.parts["vae"])
        self.noising = DiffusionNoise(load_scheduler(path, None, "sd_text_space"), min_snr=min_snr)
        side = int(self.unet.config.sample_size or 1) * self.latents.factor
        self.size = (side, side)
        if kind == "image":
            self.preprocess = Preprocess(size=self.size, mean=(0.0,) * 3, std=(1.0,) * 3, fit="pad")

    def loss(self, target: Float[Tensor, "K *medium"], condition: Condition, draw: Draw) -> HeadOutput:
        """Distances and denoising losses of K items, each with its weight.

        Args:
            target: pictures [K C H W] or clips [K F C H W] in 0..1, or spectrograms [K 1 T M] as the autoencoder
                reads them.
            condition: states of the signal tokens, and the caption's.
            draw: of noise and times.

        Raises:
            DataError: the captions' states are missing or of another shape.
        """
        if not len(target):
            names = [name for name, weight in self.weights.items() if weight]
            made = [no_items(self, condition.states, name) for name in names]
            return _joined(made)
        text = self.mapper(condition.states)
        made = []
        if self.weights["caption"]:
            made.append(self._distance(text, condition.caption))
        if self.weights["denoising"]:
            noised = self._noised(target, Streams(draw, target.device))
            loss = denoising_loss(noised, self._answer(noised, text))
            weighted = {name: self.weights[name] * value for name, value in loss.losses.items()}
            made.append(HeadOutput(losses=weighted, counts=loss.counts))
        return _joined(made)

    def generate(
        self, condition: Condition, guidance: Mapping[str, float] = {}, seed: int = 0
    ) -> Float[Tensor, "K *medium"]:
        """What the pipeline makes: pictures [K C H W] or clips [K F C H W] in 0..1, waves [K samples].

        `guidance`: strength of "condition".

        Raises:
            UserError: another strength.
        """
        options = self.sampling_options
        strength = read_strengths(guidance, {"condition": options.guidance}, "sd_text_space")["condition"]
        with torch.no_grad():
            text = self.mapper(condition.states)
        made = self.pipeline(
            prompt_embeds=text[:, 0] if self.kind == "audio" else text,
            num_inference_steps=options.steps,
            guidance_scale=strength,
            generator=Streams.of_seed(seed, len(text)).generators,
            output_type="np" if self.kind == "audio" else "pt",
        )[0]
        return torch.as_tensor(made, device=text.device).float()

    def _distance(self, text: Float[Tensor, "K L C"], caption: Float[Tensor, "K l c"] | None) -> HeadOutput:
        """In 32 bits: text encoders have outliers that overflow when squared in 16."""
        if caption is None or caption.shape != text.shape:
            found = None if caption is None else tuple(caption.shape)
            raise DataError(
                f"sd_text_space learns from Condition.caption of shape {tuple(text.shape)}, got {found}; bring the "
                "text encoder's states along, or say caption_weight: 0 and denoising_weight: 1"
            )
        difference = text.float() - caption.float()
        squared = self.caption_distance == "mse"
        each = difference.square().mean(-1) if squared else difference.norm(dim=-1)
        loss = self.weights["caption"] * each.mean(1).sum()
        return HeadOutput(losses={"caption": loss}, counts={"caption": loss.new_tensor(len(text))})

    def _noised(self, target: Float[Tensor, "K *medium"], streams: Streams) -> Noised:
        if self.kind == "audio":  # a spectrogram is no picture in 0..1: undo what `encode` does to pictures
            return self.noising(self.latents.encode((target + 1) / 2, streams), streams)
        if self.kind == "image":
            return self.noising(self.latents.encode(fit_pixels(target, self.size), streams), streams)
        frames = self.latents.encode(target.flatten(0, 1))
        return self.noising(frames.unflatten(0, target.shape[:2]).transpose(1, 2), streams)

    def _answer(self, noised: Noised, text: Float[Tensor, "K L C"]) -> Tensor:
        told = {"encoder_hidden_states": text}
        if self.kind == "audio":
            told = {"encoder_hidden_states": None, "class_labels": text[:, 0]}
        return self.unet(noised.sample, noised.time, **told, return_dict=False)[0]


def _load(path: str) -> tuple[Any, nn.ModuleDict]:
    """The pipeline and its modules; on the meta device, the modules that have shapes of interest alone."""
    if torch.get_default_device().type == "meta":
        networks = {kind: load_network(kind, path, None, "sd_text_space") for kind in ("unet", "vae")}
        return None, nn.ModuleDict(networks)
    from diffusers import DiffusionPipeline

    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(path, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"sd_text_space can't read the pipeline {path}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    return pipeline, nn.ModuleDict(modules)


def _text_width(unet: Any, kind: str) -> int:
    config = unet.config
    if config.get("addition_embed_type") == "text_time":
        raise UserError("sd_text_space maps into one text encoder's space; SDXL has two and a pooled vector: use sdxl")
    return int(config["projection_class_embeddings_input_dim" if kind == "audio" else "cross_attention_dim"])


def _joined(made: list[HeadOutput]) -> HeadOutput:
    return HeadOutput(
        losses={name: loss for each in made for name, loss in each.losses.items()},
        counts={name: count for each in made for name, count in each.counts.items()},
    )
