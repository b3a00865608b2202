"""The huggingface backbone against transformers itself."""

import pytest
import torch

from mmunify.backbones.huggingface import HuggingFaceBackbone, additive_mask
from mmunify.errors import CheckpointError, UserError
from mmunify.paths import resolve_path
from mmunify.types import Attention


@pytest.fixture
def backbone(llama_folder):
    return HuggingFaceBackbone(path=str(llama_folder)).eval()


def causal(lengths, total, document=None):
    valid = torch.arange(total)[None] < torch.tensor(lengths)[:, None]
    ids = torch.zeros(len(lengths), total, dtype=torch.long) if document is None else document
    return Attention(document=ids.where(valid, -1), segment=torch.zeros_like(ids), full=valid & False, valid=valid)


def positions(rows, total):
    return torch.arange(total)[None].expand(rows, -1)


def test_hidden_states_and_logits_are_those_of_transformers(backbone):
    ids = torch.randint(0, backbone.vocab_size, (2, 9))
    hidden = backbone(backbone.embed(ids), causal([9, 9], 9), positions(2, 9), layers=(1,))
    wanted = backbone.lm(ids, output_hidden_states=True)
    torch.testing.assert_close(backbone.unembed(hidden.last.flatten(0, 1)), wanted.logits.flatten(0, 1))
    torch.testing.assert_close(hidden.layers[1], wanted.hidden_states[1])


def test_right_padding_changes_nothing(backbone):
    ids = torch.randint(0, backbone.vocab_size, (1, 6))
    padded = torch.cat([ids, ids.new_zeros(1, 3)], dim=1)
    alone = backbone(backbone.embed(ids), causal([6], 6), positions(1, 6)).last
    together = backbone(backbone.embed(padded), causal([6], 9), positions(1, 9)).last
    torch.testing.assert_close(together[:, :6], alone)


def test_documents_of_one_row_do_not_see_each_other(backbone):
    ids = torch.randint(0, backbone.vocab_size, (1, 8))
    document = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
    restart = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    packed = backbone(backbone.embed(ids), causal([8], 8, document), restart).last
    alone = backbone(backbone.embed(ids[:, 5:]), causal([3], 3), positions(1, 3)).last
    torch.testing.assert_close(packed[:, 5:], alone)


def test_a_full_segment_sees_itself_in_both_directions():
    segment = torch.tensor([[0, 1, 1, 0]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    attention = Attention(document=segment * 0, segment=segment, full=segment == 1, valid=valid)
    seen = additive_mask(attention, 4, torch.float32)[0, 0] == 0
    assert seen.tolist() == [
        [True, False, False, False],
        [True, True, True, False],
        [True, True, True, False],
        [True, True, True, True],
    ]


def test_new_rows_are_separate_and_old_ones_keep_their_values(llama_folder):
    backbone = HuggingFaceBackbone(path=str(llama_folder))
    before, size = backbone.lm.get_input_embeddings().weight.clone(), backbone.vocab_size
    backbone.add_tokens({"media": ["<image>", "</image>"], "tasks": ["<segment>"], "none": ["<image>"]})
    assert backbone.vocab_size == size + 3
    assert {name: len(rows) for name, rows in backbone.new_rows.items()} == {"media": 2, "tasks": 1}
    ids = torch.tensor(backbone.tokenizer("<image><segment>", add_special_tokens=False).input_ids)
    assert ids.tolist() == [size, size + 2]
    assert torch.equal(backbone.embed(ids)[0], backbone.new_rows["media"][0])
    assert torch.equal(backbone.lm.get_input_embeddings().weight, before)


def test_gradients_of_new_tokens_reach_new_rows_alone(llama_folder):
    backbone = HuggingFaceBackbone(path=str(llama_folder))
    size = backbone.vocab_size
    backbone.add_tokens({"media": ["<image>"]})
    backbone.embed(torch.tensor([size])).sum().backward()
    assert float(backbone.new_rows["media"].grad.abs().sum()) > 0
    assert float(backbone.lm.get_input_embeddings().weight.grad.abs().sum()) == 0


def test_unembed_of_some_rows_is_a_selection(backbone):
    backbone.add_tokens({"media": ["<image>"]})
    states, rows = torch.randn(3, backbone.dim), torch.tensor([0, backbone.vocab_size - 1, 5])
    torch.testing.assert_close(backbone.unembed(states, rows), backbone.unembed(states)[:, rows])


def test_cached_steps_equal_one_pass(backbone):
    ids = torch.randint(0, backbone.vocab_size, (1, 7))
    whole = backbone(backbone.embed(ids), causal([7], 7), positions(1, 7)).last
    cache, states = backbone.new_cache(), []
    for t in range(7):
        step = backbone(backbone.embed(ids[:, t : t + 1]), causal([t + 1], t + 1), torch.tensor([[t]]), cache=cache)
        states.append(step.last)
    torch.testing.assert_close(torch.cat(states, 1), whole, rtol=1e-5, atol=1e-5)


def test_inline_config_needs_no_files():
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 11}
    backbone = HuggingFaceBackbone(config=config)
    assert (backbone.dim, backbone.vocab_size, backbone.external) == (16, 11, None)


def test_sliding_windows_are_declared():
    config = {"model_type": "gemma3_text", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 11, "head_dim": 8}
    assert HuggingFaceBackbone(config=config).supports == {"cache"}


def test_bad_input(tmp_path, llama_folder):
    with pytest.raises(UserError, match="needs path"):
        HuggingFaceBackbone()
    with pytest.raises(CheckpointError, match="nowhere"):
        HuggingFaceBackbone(path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="token id 9999 is outside the vocabulary"):
        HuggingFaceBackbone(path=str(llama_folder)).embed(torch.tensor([9999]))


def test_saved_folders_are_ordinary_transformers_models(llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    backbone = HuggingFaceBackbone(path=str(llama_folder)).eval()
    backbone.add_tokens({"media": ["<image>"], "tasks": ["<segment>"]})
    folder = backbone.save_folder(tmp_path / "saved")
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("a <image> b<segment>", add_special_tokens=False).input_ids])
    hidden = backbone(backbone.embed(ids), causal([ids.shape[1]], ids.shape[1]), positions(1, ids.shape[1]))
    torch.testing.assert_close(loaded(ids).logits[0], backbone.unembed(hidden.last[0]))
    again = HuggingFaceBackbone(path=str(folder))
    again.add_tokens({"media": ["<image>"]})
    assert again.vocab_size == backbone.vocab_size and not again.new_rows


def test_on_the_meta_device_no_weights_are_read(llama_folder):
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 11}
    with torch.device("meta"):
        local = HuggingFaceBackbone(path=str(llama_folder))
        remote = HuggingFaceBackbone(path="nobody/nowhere-7b", config=config)
    assert all(p.is_meta for p in local.parameters()) and local.dim == HuggingFaceBackbone(path=str(llama_folder)).dim
    assert remote.dim == 16 and remote.tokenizer is None and remote.external == "nobody/nowhere-7b"


def test_a_tokenizer_larger_than_the_table_is_refused():
    config = {"model_type": "llama", "vocab_size": 1000, "hidden_size": 16, "intermediate_size": 16}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(UserError, match="tokenizer has 1234 entries and the backbone's table 1000 rows"):
        HuggingFaceBackbone(config=config, tokenizer=resolve_path("assets:tiny/backbone"))
