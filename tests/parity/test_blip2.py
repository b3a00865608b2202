"""BLIP-2's tower, qformer and a decoder composed = transformers' Blip2ForConditionalGeneration, by the converter."""

import pytest
import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

from mmunify.checkpoint import import_model
from mmunify.testing import randomize
from tests.parity.composed import logits, make_batch, rows_with_pictures
from tests.parity.test_llava import TEXT, TOWER

IMAGE, QUERIES = 47, 5
DECODERS = {
    "opt": {
        "model_type": "opt",
        "vocab_size": 48,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 128,
    },
    "llama": TEXT,
}


def write_blip2(folder, decoder="opt"):
    config = Blip2Config(
        vision_config=TOWER,
        qformer_config={
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "encoder_hidden_size": 16,
        },
        text_config=DECODERS[decoder],
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
    )
    theirs = randomize(Blip2ForConditionalGeneration(config)).eval()
    theirs.save_pretrained(folder)
    return theirs


@pytest.fixture(scope="module", params=DECODERS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip2")
    theirs = write_blip2(folder, request.param)
    return import_model(folder).model.eval(), theirs


@pytest.mark.parametrize("images_per_row", [[1], [1, 2]])
def test_logits_and_loss(pair, images_per_row):
    ours, theirs = pair
    rows, labels = rows_with_pictures(images_per_row, IMAGE, QUERIES, vocabulary=40)
    values = torch.randn(sum(images_per_row), 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = make_batch(rows, labels, IMAGE, values)
    with torch.no_grad():
        wanted = theirs(
            pixel_values=values[:, 0],
            input_ids=batch.input_ids,
            attention_mask=batch.attention.valid.long(),
            labels=batch.labels,
        )
        made, report = logits(ours, batch), ours(batch)
    valid = batch.attention.valid
    assert made.std() > 0.1
    torch.testing.assert_close(made[valid], wanted.logits[valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(report.total, wanted.loss, atol=1e-5, rtol=0)
