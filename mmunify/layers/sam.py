"""SAM's parts, from transformers (https://arxiv.org/abs/2304.02643)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import CheckpointError, UserError


def load_sam(path: str | None, config: dict | None) -> Any:
    """A SamModel: weights of a folder or hub id, or random ones of a configuration.

    Args:
        path: hub id or folder of a whole SAM.
        config: SamConfig's arguments (`vision_config`, `prompt_encoder_config`, `mask_decoder_config`).

    Raises:
        UserError: neither path nor config, or a folder of another kind of model.
        CheckpointError: files that are missing or damaged.
    """
    from transformers import AutoConfig, SamConfig, SamModel

    on_meta = torch.get_default_device().type == "meta"
    if path is None and config is None:
        raise UserError("SAM needs path: (hub id or folder) or config: (arguments of SamConfig); got neither")
    if path is None or (on_meta and config is not None):
        return SamModel(SamConfig(**(config or {})))
    try:
        found: Any = AutoConfig.from_pretrained(path)
    except Exception as error:
        raise CheckpointError(f"the configuration of {path!r} cannot be read: {error}") from error
    if found.model_type != "sam":
        raise UserError(f"{path!r} holds a model of type {found.model_type!r}, not 'sam'")
    if on_meta:
        return SamModel(found)
    try:
        return SamModel.from_pretrained(path, use_safetensors=True)
    except Exception as error:  # OSError, SafetensorError, RuntimeError on shapes: the files can't be used
        raise CheckpointError(f"the SAM {path!r} cannot be loaded: {error}") from error


class SAMDecoder(nn.Module):
    """SAM's mask decoder with its dense prompt "no mask" and its places, fed with sparse prompts from elsewhere.

    Args:
        path, config: see `load_sam`.
        in_dim: width of the raster, checked against the decoder's.

    Raises:
        UserError: a raster of another width.
    """

    scale = 4

    def __init__(self, path: str | None = None, config: dict | None = None, in_dim: int | None = None) -> None:
        super().__init__()
        model = load_sam(path, config)
        self.dim: int = model.config.mask_decoder_config.hidden_size
        if in_dim not in (None, self.dim):
            raise UserError(f"SAM's mask decoder reads features of width {self.dim}; the encoder's are {in_dim} wide")
        self.mask_decoder = model.mask_decoder
        self.no_mask = model.prompt_encoder.no_mask_embed
        self.places = model.shared_image_embedding
        # One mask per prompt: what makes the others and their scores is let go, it would never get a gradient.
        self.mask_decoder.num_mask_tokens = 1
        self.mask_decoder.output_hypernetworks_mlps = self.mask_decoder.output_hypernetworks_mlps[:1]
        self.mask_decoder.iou_prediction_head = nn.Identity()

    def forward(self, raster: Float[Tensor, "K E h w"], prompts: Float[Tensor, "K P D"]) -> Float[Tensor, "K H W"]:
        """One mask per item, as logits; H = 4 h."""
        dense = self.no_mask.weight.reshape(1, -1, 1, 1).expand_as(raster)
        masks, _ = self.mask_decoder(
            image_embeddings=raster,
            image_positional_embeddings=self._places(raster).expand_as(raster),
            sparse_prompt_embeddings=prompts[:, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return masks[:, 0, 0]

    def _places(self, raster: Float[Tensor, "K E h w"]) -> Float[Tensor, "1 E h w"]:
        """Fourier features of the cells' centres."""
        height, width = raster.shape[2:]
        table = self.places.positional_embedding
        down = (torch.arange(height, device=table.device, dtype=table.dtype) + 0.5) / height
        across = (torch.arange(width, device=table.device, dtype=table.dtype) + 0.5) / width
        centres = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)], dim=-1)
        return self.places(centres).permute(2, 0, 1)[None].to(raster.dtype)
