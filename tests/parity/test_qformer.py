"""Our qformer = transformers' Q-Formers of BLIP-2 and InstructBLIP with mapped weights."""

import pytest
import torch
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
)

from mmunify.adapters.qformer import QFormerAdapter
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features

PIECES = {
    "norm": "layernorm",
    "attention.query": "attention.attention.query",
    "attention.key": "attention.attention.key",
    "attention.value": "attention.attention.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "cross.query": "crossattention.attention.query",
    "cross.key": "crossattention.attention.key",
    "cross.value": "crossattention.attention.value",
    "cross.output": "crossattention.output.dense",
    "cross_norm": "crossattention.output.LayerNorm",
    "feed_forward.expand": "intermediate_query.dense",
    "feed_forward.reduce": "output_query.dense",
    "feed_forward_norm": "output_query.LayerNorm",
    "text_feed_forward.expand": "intermediate.dense",
    "text_feed_forward.reduce": "output.dense",
    "text_feed_forward_norm": "output.LayerNorm",
}
EMBEDDINGS = {
    "text.words.weight": "embeddings.word_embeddings.weight",
    "text.positions.weight": "embeddings.position_embeddings.weight",
    "norm.weight": "embeddings.layernorm.weight",
    "norm.bias": "embeddings.layernorm.bias",
}
UNREAD = ("encoder.layer.2.intermediate.", "encoder.layer.2.output.")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 10,
}


def their_name(name: str) -> str:
    """blocks.0.attention.query.weight -> encoder.layer.0.attention.attention.query.weight"""
    head, _, kind = name.rpartition(".")
    if not head.startswith("blocks."):
        return f"{PIECES[head]}.{kind}"
    _, index, piece = head.split(".", 2)
    return f"encoder.layer.{index}.{PIECES[piece]}.{kind}"


def build_pair(frequency: int, depth: int, num_queries: int = 6):
    config = Blip2QFormerConfig(
        hidden_size=16,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=64,
        encoder_hidden_size=10,
        cross_attention_frequency=frequency,
    )
    theirs = randomize(Blip2QFormerModel(config)).eval()
    ours = QFormerAdapter(
        in_dim=10,
        out_dim=16,
        num_queries=num_queries,
        depth=depth,
        dim=16,
        num_heads=4,
        cross_attention_frequency=frequency,
    ).eval()
    given = theirs.state_dict()
    own = ("queries", "project.weight", "project.bias")
    weights = {name: given[their_name(name)] for name in ours.state_dict() if name not in own}
    assert len(weights) == len(given), "a tensor of theirs has no place in ours"
    weights |= {
        "queries": torch.randn(num_queries, 16),
        "project.weight": torch.eye(16),
        "project.bias": torch.zeros(16),
    }
    ours.load_state_dict(weights)
    return ours, theirs


@pytest.mark.parametrize(("frequency", "depth"), [(1, 2), (2, 3), (2, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_blip2(frequency, depth, masked):
    torch.manual_seed(0)
    ours, theirs = build_pair(frequency, depth)
    tokens = torch.randn(3, 7, 10)
    mask = torch.arange(7).expand(3, 7) < torch.tensor([[7], [4], [1]]) if masked else None
    answer = ours(Features(tokens=tokens, mask=mask), Context()).tokens
    wanted = theirs(
        query_embeds=ours.queries.expand(3, -1, -1),
        encoder_hidden_states=tokens,
        encoder_attention_mask=None if mask is None else mask.long(),
    ).last_hidden_state
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=0)


def test_gradients_are_equal_too():
    torch.manual_seed(0)
    ours, theirs = build_pair(frequency=2, depth=2)
    tokens, weights = torch.randn(2, 7, 10), torch.randn(2, 6, 16)
    (ours(Features(tokens=tokens), Context()).tokens * weights).sum().backward()
    queries = ours.queries.detach().expand(2, -1, -1)
    (theirs(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state * weights).sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if not name.startswith(("queries", "project")):
            torch.testing.assert_close(parameter.grad, wanted[their_name(name)].grad, atol=1e-4, rtol=1e-4)


def build_with_text():
    """Ours, and InstructBLIP's with the same weights; what its last layer does to words is read by nothing."""
    theirs = randomize(InstructBlipQFormerModel(InstructBlipQFormerConfig(vocab_size=23, **SIZES))).eval()
    ours = QFormerAdapter(
        10, 16, num_queries=6, depth=3, dim=16, num_heads=4, cross_attention_frequency=2, text={"vocab_size": 23}
    )
    given = theirs.state_dict()
    weights = {name: given[their] for name, their in EMBEDDINGS.items()}
    weights |= {name: given[their_name(name)] for name in ours.state_dict() if taken(name) and name not in weights}
    unread = [name for name in given if name.startswith(UNREAD)]
    assert len(weights) + len(unread) == len(given), "a tensor of theirs has no place in ours"
    own = {"queries": torch.randn(6, 16), "project.weight": torch.eye(16), "project.bias": torch.zeros(16)}
    ours.load_state_dict({**weights, **own})
    return ours.eval(), theirs, weights


def taken(name: str) -> bool:
    return not name.startswith(("queries", "project", "text."))


@pytest.mark.parametrize("masked", [False, True])
def test_equals_instruct_blip(masked):
    torch.manual_seed(0)
    ours, theirs, _ = build_with_text()
    tokens, ids = torch.randn(3, 7, 10), torch.randint(0, 23, (3, 5))
    mask = torch.arange(7).expand(3, 7) < torch.tensor([[7], [4], [1]]) if masked else None
    words = torch.arange(5).expand(3, 5) < torch.tensor([[5], [2], [1]]) if masked else None
    answer = ours(Features(tokens=tokens, mask=mask), Context(side_ids=ids, side_mask=words)).tokens
    seen = None if words is None else torch.cat([torch.ones(3, 6), words], dim=1).long()
    wanted = theirs(
        input_ids=ids,
        attention_mask=seen,
        query_embeds=ours.queries.expand(3, -1, -1),
        encoder_hidden_states=tokens,
        encoder_attention_mask=None if mask is None else mask.long(),
    ).last_hidden_state[:, :6]
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=0)


def test_equals_blip2_with_text_as_embeddings():
    torch.manual_seed(0)
    ours, _, _ = build_with_text()
    theirs = Blip2QFormerModel(Blip2QFormerConfig(use_qformer_text_input=True, **SIZES)).eval()
    weights = {their_name(name): tensor for name, tensor in ours.state_dict().items() if taken(name)}
    report = theirs.load_state_dict(weights, strict=False)
    assert not report.unexpected_keys
    assert all(name.startswith(UNREAD) for name in report.missing_keys)
    tokens, ids = torch.randn(3, 7, 10), torch.randint(0, 23, (3, 5))
    both = torch.cat([ours.queries.expand(3, -1, -1), ours.text(ids)], dim=1)
    wanted = theirs(query_embeds=both, query_length=6, encoder_hidden_states=tokens).last_hidden_state[:, :6]
    answer = ours(Features(tokens=tokens), Context(side_ids=ids)).tokens
    torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=0)
