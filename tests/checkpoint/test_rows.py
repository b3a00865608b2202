import pytest
import torch

from mmunify.backbones.huggingface import HuggingFaceBackbone
from mmunify.checkpoint.rows import adopt_padding, whole_tables
from mmunify.testing import tiny_llama_folder

TABLE, HEAD = "lm.model.embed_tokens.weight", "lm.lm_head.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("llama"))


def build(folder, padding, tied=False):
    """A backbone whose tables have `padding` rows behind the tokenizer's 260, with tokens a, b | c added."""
    config = {"model_type": "llama", "vocab_size": 260 + padding, "hidden_size": 8, "intermediate_size": 8}
    small = {"num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": tied}
    backbone = HuggingFaceBackbone(config=config | small, tokenizer=str(folder))
    backbone.add_tokens({"x": ["<a>", "<b>"], "y": ["<c>"]})
    return backbone


@pytest.mark.parametrize(("padding", "adopted"), [(0, 0), (2, 2), (9, 3)])
def test_added_tokens_take_the_rows_behind_the_tokenizer(folder, padding, adopted):
    backbone = build(folder, padding)
    drawn = torch.cat(list(backbone.new_rows.values()))
    adopt_padding(backbone, kept=lambda name: name == "new_output_rows.x")
    rows, table = torch.cat(list(backbone.new_rows.values())), backbone.state_dict()[TABLE]
    assert torch.equal(rows[:adopted], table[260 : 260 + adopted])
    assert torch.equal(rows[adopted:], drawn[adopted:])
    if padding == 9:
        outputs, head = backbone.new_output_rows, backbone.state_dict()[HEAD]
        assert torch.equal(outputs["y"], head[262:263]) and not torch.equal(outputs["x"], head[260:262])


@pytest.mark.parametrize(("padding", "length"), [(0, 263), (2, 263), (9, 269)])
def test_whole_tables_hold_the_added_rows_at_their_ids(folder, padding, length):
    backbone = build(folder, padding)
    whole = whole_tables(backbone, kept=lambda name: name == "new_rows.y")
    assert whole.keys() == {TABLE, HEAD} and whole[TABLE].shape == (length, 8)
    assert torch.equal(whole[TABLE][260:262], backbone.new_rows["x"])
    assert torch.equal(whole[HEAD][260:263], torch.cat(list(backbone.new_output_rows.values())))
    assert not torch.equal(whole[TABLE][262:263], backbone.new_rows["y"])
    assert torch.equal(whole[TABLE][:260], backbone.state_dict()[TABLE][:260])


def test_tied_tables_are_one(folder):
    whole = whole_tables(build(folder, 0, tied=True), kept=lambda name: False)
    assert whole.keys() == {TABLE, HEAD} and whole[TABLE] is whole[HEAD]
