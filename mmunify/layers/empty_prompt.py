"""What a pipeline's text encoders say of an empty prompt."""

from typing import Any

import torch
from torch import Tensor

from mmunify.errors import CheckpointError
from mmunify.layers.diffusers_folder import has_folder

LENGTH = 77
"""Tokens of CLIP's text encoders."""


def empty_prompt(path: str | None, states_dim: int, pooled_dim: int | None, owner: str) -> tuple[Tensor, Tensor | None]:
    """States (77, C) and pooled vector (P) of the empty prompt; zeros where there is no text encoder.

    The text encoders are read, asked once and let go.

    Args:
        path: hub id or folder of a pipeline; None = there is none.
        states_dim: C.
        pooled_dim: P; None = the pipeline has no pooled vector.
        owner: the part, for messages.

    Raises:
        CheckpointError: the text encoder can't be read.
    """
    on_meta = torch.get_default_device().type == "meta"
    if on_meta or not has_folder(path, "text_encoder"):
        return torch.zeros(LENGTH, states_dim), None if pooled_dim is None else torch.zeros(pooled_dim)
    states, pooled = _ask(str(path), owner)
    return states[0], pooled[0] if pooled is not None and pooled_dim is not None else None


@torch.no_grad()
def _ask(path: str, owner: str) -> tuple[Tensor, Tensor | None]:
    from diffusers import DiffusionPipeline

    rest = {"unet": None, "vae": None, "safety_checker": None}
    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(path, use_safetensors=True, **rest)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{owner} can't read the text encoder of {path}: {error}") from error
    said = pipeline.encode_prompt(prompt="", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return said[0], said[2] if len(said) == 4 else None
