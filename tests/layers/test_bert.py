import pytest
import torch

from mmunify.errors import DataError
from mmunify.layers.bert import BertBlock, TextEmbedding


def build(**arguments):
    torch.manual_seed(0)
    return BertBlock(16, 10, num_heads=4, **arguments).eval()


def test_states_and_memory_reach_the_answer():
    block, states, memory = build(), torch.randn(2, 3, 16), torch.randn(2, 5, 10)
    answer = block(states, memory)
    assert answer.shape == (2, 3, 16)
    assert (block(states, memory + 1) - answer).abs().max() > 1e-3
    assert (block(states.flip(1), memory) - answer.flip(1)).abs().max() < 1e-5


def test_words_are_seen_by_queries_but_do_not_read():
    block, states, memory = build(text=True), torch.randn(2, 7, 16), torch.randn(2, 5, 10)
    answer = block(states, memory, num_queries=3)
    assert answer.shape == (2, 7, 16)
    other = block(states, memory + 1, num_queries=3)
    assert (other[:, :3] - answer[:, :3]).abs().max() > 1e-3
    assert torch.equal(other[:, 3:], answer[:, 3:])
    changed = states.clone()
    changed[:, 5] += torch.linspace(-1, 1, 16)
    assert (block(changed, memory, num_queries=3)[:, :3] - answer[:, :3]).abs().max() > 1e-4


def test_masked_words_are_as_good_as_absent():
    block, states, memory = build(text=True), torch.randn(2, 7, 16), torch.randn(2, 5, 10)
    seen = torch.arange(7).expand(2, 7) < 5
    answer = block(states, memory, None, seen, 3)
    torch.testing.assert_close(answer[:, :5], block(states[:, :5], memory, None, None, 3))


def test_without_text_it_answers_for_the_queries_alone():
    block, states, memory = build(), torch.randn(2, 7, 16), torch.randn(2, 5, 10)
    assert block(states, memory, num_queries=3).shape == (2, 3, 16)


def test_text_is_words_and_places():
    text = TextEmbedding(11, 6, max_length=4)
    ids = torch.tensor([[3, 3, 9]])
    wanted = text.words.weight[ids[0]] + text.positions.weight[:3]
    assert torch.equal(text(ids)[0], wanted)


def test_a_text_that_is_too_long():
    with pytest.raises(DataError, match="a text of 5 tokens beside a medium; its reader has positions for 4"):
        TextEmbedding(11, 6, max_length=4)(torch.zeros(1, 5, dtype=torch.long))
