"""The tokenizer: exact round trips, single entries, bytes for the rest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.data.datasets.digit_text import DigitText
from mmunify.data.digit_world.tokenizer import build_tokenizer
from mmunify.data.digit_world.words import vocabulary
from mmunify.types import Text

TOKENIZER = build_tokenizer()


def ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    "word", [" red", " left12", " 7[", "0.125", "0.125,", "0.125]", "<segment>", "</box>", "</s>", "[", ","]
)
def test_known_pieces_are_single_entries(word):
    assert len(ids(word)) == 1


def test_the_whole_vocabulary_is_known():
    assert all(len(ids(" " + word)) <= 2 for word in vocabulary())


def test_conversations_take_one_entry_per_word():
    unknown = set(range(3, 3 + 256))  # bytes
    for index in range(20):
        for turn in DigitText(turns=3)[index].turns:
            text = "".join(part.text for part in turn.parts if isinstance(part, Text))
            rare = [TOKENIZER.decode([i]) for i in ids(text) if i in unknown]
            assert all(piece.isspace() or not piece.isalnum() or len(piece) == 1 for piece in rare)
            assert TOKENIZER.decode(ids(text)) == text


def test_the_piece_before_a_coordinate_says_what_it_is_looked_up_by():
    pieces = [TOKENIZER.decode([i]) for i in ids("<box>red 7[0.125,0.250,0.375,0.500]</box>")]
    assert pieces == ["<box>", "red", " 7[", "0.125,", "0.250,", "0.375,", "0.500]", "</box>"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives(text):
    assert TOKENIZER.decode(ids(text)) == text


def test_saved_and_loaded_by_transformers(tmp_path):
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "USER: scene: red 7 left12 ASSISTANT: <box>red 7[0.125,0.250,0.375,0.500]</box></s>"
    assert loaded(text, add_special_tokens=False).input_ids == ids(text)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")
