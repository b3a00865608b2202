"""clip or siglip, mlp and a Llama composed = transformers' LlavaForConditionalGeneration, weights by the converter."""

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from mmunify.checkpoint import import_model
from mmunify.testing import randomize
from tests.parity.composed import logits, make_batch, rows_with_pictures

TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
IMAGE, PLACES = 47, 16
TOWERS = {
    "clip": {"vision_config": {"model_type": "clip_vision_model", **TOWER}},
    "clip with its class, last layer": {
        "vision_config": {"model_type": "clip_vision_model", **TOWER},
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
    },
    "siglip": {
        "vision_config": {"model_type": "siglip_vision_model", **TOWER},
        "vision_feature_select_strategy": "full",
    },
    "siglip without a head": {
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **TOWER},
        "vision_feature_select_strategy": "full",
    },
}


@pytest.fixture(scope="module", params=TOWERS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    config = LlavaConfig(text_config=TEXT, image_token_index=IMAGE, **TOWERS[request.param])
    theirs = randomize(LlavaForConditionalGeneration(config)).eval()
    theirs.save_pretrained(folder)
    return import_model(folder).model.eval(), theirs


def prepared(theirs, images_per_row):
    places = PLACES + (theirs.config.vision_feature_layer == -1)
    rows, labels = rows_with_pictures(images_per_row, IMAGE, places, vocabulary=40)
    values = torch.randn(sum(images_per_row), 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return make_batch(rows, labels, IMAGE, values)


def their_answer(theirs, batch):
    return theirs(
        input_ids=batch.input_ids,
        pixel_values=batch.media["image"].values[:, 0],
        attention_mask=batch.attention.valid.long(),
        labels=batch.labels,
    )


@pytest.mark.parametrize("images_per_row", [[1], [1, 2], [0, 1, 1]])
def test_logits_and_loss(pair, images_per_row):
    ours, theirs = pair
    batch = prepared(theirs, images_per_row)
    with torch.no_grad():
        wanted = their_answer(theirs, batch)
        valid = batch.attention.valid
        made = logits(ours, batch)
        report = ours(batch)
    assert made.std() > 0.1
    torch.testing.assert_close(made[valid], wanted.logits[valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(report.total, wanted.loss, atol=1e-5, rtol=0)


def test_gradients_of_the_projector(pair):
    ours, theirs = pair
    batch = prepared(theirs, [1, 2])
    ours(batch).total.backward()
    their_answer(theirs, batch).loss.backward()
    projector = theirs.model.multi_modal_projector
    for name, place in (("linear_1", 0), ("linear_2", 2)):
        ours_grad, theirs_grad = ours.adapters["image"].layers[place].weight.grad, getattr(projector, name).weight.grad
        assert theirs_grad.abs().max() > 1e-3
        torch.testing.assert_close(ours_grad, theirs_grad, atol=1e-5, rtol=1e-4)
