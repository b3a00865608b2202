"""Sizes of a LLaVA, and the configurations of transformers' classes for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PATCH = 14


@dataclass(frozen=True, kw_only=True)
class LlavaShape:
    """Sizes of the model."""

    vocabulary: int = 32_064
    hidden: int = 512
    inner: int = 1376
    depth: int = 8
    tower: int = 128
    tower_depth: int = 4

    def tower_config(self, grid: int, head: int = 32) -> dict[str, Any]:
        """CLIP's, for `grid` patches a side and heads of width `head`."""
        return {
            "hidden_size": self.tower,
            "intermediate_size": 4 * self.tower,
            "num_attention_heads": max(1, self.tower // head),
            "num_hidden_layers": self.tower_depth,
            "image_size": grid * PATCH,
            "patch_size": PATCH,
        }

    def text_config(self) -> dict[str, Any]:
        """Llama's."""
        return {
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_attention_heads": max(1, self.hidden // 64),
            "num_hidden_layers": self.depth,
        }


def write_llava(folder: Path, shape: LlavaShape, grid: int, image_id: int) -> None:
    """transformers' LLaVA with random weights, as `save_pretrained` writes it."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **shape.tower_config(grid)},
        text_config=shape.text_config(),
        image_token_index=image_id,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
