"""Pipelines of diffusers with random weights of a few kilobytes, written as `save_pretrained` does."""

import json
from pathlib import Path

import torch

from mmunify.testing import randomize

VAE = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}
UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
XL = {
    **UNET,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 10,
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2),
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SANA = {
    "sample_size": 8,
    "in_channels": 12,
    "out_channels": 12,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 20,
    "mlp_ratio": 2.0,
}


def unet(**changes):
    """A U-Net of the SD-1.5 layout; of SDXL's with `**XL`."""
    from diffusers import UNet2DConditionModel

    return randomize(UNet2DConditionModel(**{**UNET, **changes}), std=0.1).eval()


def vae(**changes):
    from diffusers import AutoencoderKL

    return randomize(AutoencoderKL(**{**VAE, **changes}), seed=1, std=0.1).eval()


def deep_vae():
    """Sana's kind of autoencoder."""
    from diffusers import AutoencoderDC

    sizes = {"block_out_channels": (8, 8), "layers_per_block": (1, 1), "qkv_multiscales": ((), ())}
    both = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sizes.items()}
    return randomize(AutoencoderDC(**both, latent_channels=4, attention_head_dim=4), seed=1, std=0.1).eval()


def euler(**changes):
    """SDXL's own scheduler."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(**{**BETAS, "timestep_spacing": "leading", "steps_offset": 1, **changes})


def unet_folder(folder, network, scheduler=None):
    """unet/, vae/ and scheduler/, without text encoders."""
    folder = Path(folder)
    network.save_pretrained(folder / "unet")
    vae().save_pretrained(folder / "vae")
    (scheduler or euler()).save_pretrained(folder / "scheduler")
    return folder


def clip_text(dim, projection=None):
    """A CLIP text tower and its tokenizer, with a vocabulary of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=60,
        hidden_size=dim,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=projection or dim,
        bos_token_id=54,
        eos_token_id=55,
        pad_token_id=55,
    )
    tower = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    return randomize(tower, seed=2).eval()


def clip_tokenizer(folder):
    from transformers import CLIPTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "!", "!</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def sd_folder(folder, network=None):
    """A whole Stable Diffusion 1.5, with its text encoder."""
    from diffusers import StableDiffusionPipeline

    folder = Path(folder)
    pipeline = StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(12),
        tokenizer=clip_tokenizer(folder / "words"),
        unet=network or unet(),
        scheduler=euler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def draw_states(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
