"""SAM's mask decoder fed with prompts from elsewhere = SamModel fed with the same prompts."""

import pytest
import torch

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.sam import SAMDecoder, load_sam
from mmunify.testing import randomize

TINY_SAM = {
    "vision_config": {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
        "mlp_dim": 24,
    },
    "prompt_encoder_config": {
        "hidden_size": 16,
        "image_size": 32,
        "patch_size": 8,
        "image_embedding_size": 4,
        "mask_input_channels": 4,
    },
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 24,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}


def sam_folder(folder):
    """A tiny SAM, redrawn (its own initialisation answers with zeros), written as `save_pretrained` does."""
    model = randomize(load_sam(None, TINY_SAM), seed=3).eval()
    model.save_pretrained(folder)
    return model


def test_masks_equal_those_of_sammodel_with_the_same_sparse_prompt(tmp_path):
    model = sam_folder(tmp_path)
    decoder = SAMDecoder(path=str(tmp_path)).eval()
    pixels, points = torch.randn(2, 3, 32, 32), torch.rand(2, 1, 3, 2) * 32
    raster = model.vision_encoder(pixels).last_hidden_state
    sparse, _ = model.prompt_encoder(points, torch.ones(2, 1, 3, dtype=torch.int), None, None)
    with torch.no_grad():
        wanted = model(pixel_values=pixels, input_points=points, multimask_output=False).pred_masks[:, 0, 0]
        made = decoder(raster, sparse[:, 0])
    assert made.shape == (2, 16, 16) and float(wanted.std()) > 1e-3
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_several_masks_of_a_picture_equal_them_one_by_one():
    torch.manual_seed(0)
    decoder = randomize(SAMDecoder(config=TINY_SAM)).eval()
    raster, prompts = torch.randn(1, 16, 4, 4), torch.randn(5, 1, 16)
    together = decoder(raster.expand(5, -1, -1, -1), prompts)
    alone = torch.cat([decoder(raster, prompt[None]) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_what_one_mask_has_no_use_for_is_let_go():
    decoder = randomize(SAMDecoder(config=TINY_SAM))
    decoder(torch.randn(1, 16, 4, 4), torch.randn(1, 1, 16)).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="reads features of width 16; the encoder's are 12 wide"):
        SAMDecoder(config=TINY_SAM, in_dim=12)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_sam(str(tmp_path / "nothing"), None)
    sam_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_sam(str(tmp_path), None)
