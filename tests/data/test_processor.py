"""The processor around encode and collate."""

import pytest

from mmunify.data.processor import Processor
from mmunify.errors import DataError
from mmunify.tokens import TokenRegistry
from mmunify.types import ModelSpec


def test_prompts_are_prefixes_of_their_conversations(processor, make_sample):
    prompt = processor.encode(make_sample("apple", prompt=True), prompt=True).input_ids
    assert processor.encode(make_sample("apple")).input_ids[: len(prompt)] == prompt


def test_decode_leaves_slots_out_and_keeps_special_strings(processor):
    ids = processor.encoder.ids("a <img><slot><slot></img> b")
    assert processor.decode(ids) == "a <img></img> b"


def test_stop_is_what_ends_an_answer(processor):
    assert processor.stop_id == processor.tokenizer.eos_token_id


def test_unknown_template():
    with pytest.raises(DataError, match="no chat template named 'vicunja'; did you mean 'vicuna'"):
        Processor(ModelSpec(), None, TokenRegistry(), chat="vicunja")
