"""patch_linear and a linear adapter = Fuyu's way from picture to embeddings."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import FuyuConfig, FuyuForCausalLM
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

from mmunify.adapters.linear import LinearAdapter
from mmunify.data.pictures import prepare_views
from mmunify.encoders.patch_linear import PatchLinearEncoder
from mmunify.parts import Context
from mmunify.testing import randomize

TEXT = {
    "model_type": "persimmon",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
PATCH = {"height": 8, "width": 8}


def picture(size):
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def fuyu():
    config = FuyuConfig(text_config=TEXT, patch_size=8, image_token_id=39)
    return randomize(FuyuForCausalLM(config)).eval()


@pytest.mark.parametrize("size", [(48, 32), (40, 17), (5, 30)])
def test_pictures_that_fit(fuyu, size):
    processor = FuyuImageProcessorPil(size={"height": 32, "width": 48}, patch_size=PATCH)
    padded = torch.as_tensor(np.asarray(processor(picture(size), return_tensors="pt")["images"][0][0]))
    rows, columns = -(-size[1] // 8), -(-size[0] // 8)
    cropped = padded.reshape(3, 32, 48)[:, : rows * 8, : columns * 8]
    encoder = PatchLinearEncoder(patch_size=8, size=[32, 48])
    values = prepare_views(picture(size), encoder.preprocess)
    torch.testing.assert_close(values[0], cropped.float(), atol=1e-5, rtol=0)
    patches = torch.as_tensor(np.asarray(processor.patchify_image(np.asarray(cropped[None], dtype=np.float32))))
    adapter = LinearAdapter(encoder.out_dim, 16)
    adapter.project.load_state_dict(fuyu.model.vision_embed_tokens.state_dict())
    with torch.no_grad():
        context = Context(extent=torch.tensor([size]))
        ours = adapter(encoder(values[None], context), context).tokens
        theirs = fuyu.model.get_image_features(patches.reshape(1, -1, 192).float()).last_hidden_state
    assert ours.shape == (1, rows * columns, 16)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert encoder.layout(size).num_slots == rows * columns
