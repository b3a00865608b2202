"""anyres around clip, mlp and a Llama composed = transformers' LlavaNextForConditionalGeneration, by the converter."""

import pytest
import torch
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from mmunify.checkpoint import import_model
from mmunify.data.processor import Processor
from mmunify.testing import randomize, tiny_llama_folder
from mmunify.types import Media, Sample, Text, Turn
from tests.parity.composed import logits
from tests.parity.test_anyres import PINPOINTS, SIZES, TOWER, picture
from tests.parity.test_llava import TEXT

IMAGE = "<image>"


def write_llava_next(folder):
    """Their folder with a tokenizer. The tables are longer than it, as published ones are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_folder(folder / "llama", words=[IMAGE]))
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={**TEXT, "vocab_size": len(tokenizer) + 4},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=16,
        image_grid_pinpoints=PINPOINTS,
    )
    theirs = randomize(LlavaNextForConditionalGeneration(config)).eval()
    theirs.save_pretrained(folder / "next")
    tokenizer.save_pretrained(folder / "next")
    return folder / "next", theirs


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder, theirs = write_llava_next(tmp_path_factory.mktemp("next"))
    return import_model(folder).model.eval(), theirs


def conversation(sizes):
    asked = [part for size in sizes for part in (Text(text="look"), Media(kind="image", source=picture(size)))]
    turns = (Turn(role="user", parts=(*asked, Text(text="what?"))), Turn(role="assistant", parts=(Text(text="a map"),)))
    return Sample(turns=turns, id=str(sizes))


@pytest.mark.parametrize("sizes", [[SIZES[:1]], [SIZES[1:3], SIZES[3:4]], [SIZES[4:5], [], SIZES[5:7]]])
def test_logits_and_loss(pair, sizes):
    """Pictures of many sizes, two in one sample, borders cut off, a newline after every row."""
    ours, theirs = pair
    batch = Processor(ours.spec(), ours.backbone.tokenizer, ours.tokens)([conversation(each) for each in sizes])
    newline = ours.backbone.tokenizer.convert_tokens_to_ids("<image_newline>")
    media = batch.media["image"]
    places = media.slots | (batch.input_ids == newline)
    assert (places & ~media.slots).any()
    with torch.no_grad():
        wanted = theirs(
            input_ids=batch.input_ids.masked_fill(places, theirs.config.image_token_index),
            pixel_values=media.values,
            image_sizes=media.extent.flip(1),
            attention_mask=batch.attention.valid.long(),
            labels=batch.labels,
        )
        made, report = logits(ours, batch), ours(batch)
    valid = batch.attention.valid
    assert made.std() > 0.1
    torch.testing.assert_close(made[valid], wanted.logits[valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(report.total, wanted.loss, atol=1e-5, rtol=0)
