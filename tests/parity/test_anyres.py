"""Our any-res = LLaVA-NeXT's, from the picture to the positions of the sequence, newlines included."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from mmunify.composer import compose
from mmunify.data.pictures import prepare_views
from mmunify.data.processor import Processor
from mmunify.layers.tiling import AnyResTiling
from mmunify.testing import randomize, tiny_llama_folder
from mmunify.tokens import TokenRegistry
from mmunify.types import Media, Sample, Turn

CANVASES = [(32, 64), (64, 32), (64, 64), (96, 32), (32, 96)]  # width, height
PINPOINTS = [[height, width] for width, height in CANVASES]
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TILING = AnyResTiling(size=(32, 32), canvases=tuple(CANVASES), cells=(4, 4))
SIZES = [(50, 40), (200, 40), (33, 97), (31, 31), (640, 480), (77, 12), (1000, 999)]


def picture(size):
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("tiling", [TILING, AnyResTiling(size=(336, 336))])
def test_grids_and_crops_of_many_sizes(tiling):
    pinpoints = [[height, width] for width, height in tiling.canvases]
    side, (down, across) = tiling.size[0], tiling.cells
    compared = 0
    for width in range(7, 1500, 61):
        for height in range(9, 1500, 67):
            rows, columns = get_anyres_image_grid_shape((height, width), pinpoints, side)
            assert tiling.grid((width, height)) == (columns, rows)
            kept = unpad_image(torch.zeros(1, rows * down, columns * across), (height, width))
            ours = torch.zeros(rows * down, columns * across)[tiling.crop((width, height))]
            if kept.numel():  # theirs keeps nothing of extreme shapes
                assert ours.shape == kept.shape[1:], (width, height)
                compared += 1
    assert compared > 450


@pytest.mark.parametrize("size", SIZES)
def test_views_are_the_processors_pictures(size):
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=PINPOINTS,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    theirs = processor(picture(size), return_tensors="pt")["pixel_values"][0]
    ours = prepare_views(picture(size), TILING)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our composition and theirs, with the same weights; our newline's row is their `image_newline`."""
    llama = tiny_llama_folder(tmp_path_factory.mktemp("llama"), words=["<newline>"])
    ours = compose(
        encoders={
            "image": {
                "name": "anyres",
                "encoder": {"name": "clip", "config": TOWER, "layer": -2},
                "canvases": [list(canvas) for canvas in CANVASES],
                "newline": "<newline>",
            }
        },
        adapters={"image": {"name": "mlp", "depth": 2}},
        backbone={"name": "huggingface", "path": str(llama)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(),
    ).eval()
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        image_token_index=39,
        image_grid_pinpoints=PINPOINTS,
    )
    theirs = randomize(LlavaNextForConditionalGeneration(config)).eval()
    inner = ours.encoders["image"].encoder.model
    inner.load_state_dict(theirs.model.vision_tower.state_dict(), strict=False)
    for name, place in (("linear_1", 0), ("linear_2", 2)):
        projector = getattr(theirs.model.multi_modal_projector, name)
        ours.adapters["image"].layers[place].load_state_dict(projector.state_dict())
    newline = ours.backbone.tokenizer("<newline>", add_special_tokens=False).input_ids
    theirs.model.image_newline.data = ours.backbone.embed(torch.tensor(newline))[0].detach().clone()
    return ours, theirs


def test_packed_features_with_newlines(pair):
    ours, theirs = pair
    processor = Processor(ours.spec(), ours.backbone.tokenizer, ours.tokens)
    media = [Media(kind="image", source=picture(size)) for size in SIZES]
    samples = [Sample(turns=(Turn(role="user", parts=tuple(media[i : i + 2])),), id=str(i)) for i in (0, 2, 4)]
    batch = processor([*samples, Sample(turns=(Turn(role="user", parts=(media[6],)),), id="6")])
    with torch.no_grad():
        embeds = ours.embed(batch, ours.encode(batch))
        values = batch.media["image"].values
        sizes = batch.media["image"].extent.flip(1)  # height, width
        wanted = theirs.get_image_features(pixel_values=values, image_sizes=sizes).pooler_output
    starts, ends = (processor.encoder.ids(string)[0] for string in ("<image>", "</image>"))
    opened = (batch.input_ids == starts).nonzero().tolist()
    closed = (batch.input_ids == ends).nonzero().tolist()
    assert len(opened) == len(wanted) == len(SIZES)
    for (row, start), (_, end), packed in zip(opened, closed, wanted, strict=True):
        torch.testing.assert_close(embeds[row, start + 1 : end], packed, atol=1e-5, rtol=0)
