"""Blocks of our aggregator = transformers' BertLayer with cross-attention (eager, which is not causal)."""

import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from mmunify.adapters.aggregator import AggregatorAdapter
from mmunify.parts import Context
from mmunify.testing import random_features, randomize

PIECES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "cross.query": "crossattention.self.query",
    "cross.key": "crossattention.self.key",
    "cross.value": "crossattention.self.value",
    "cross.output": "crossattention.output.dense",
    "cross_norm": "crossattention.output.LayerNorm",
    "feed_forward.expand": "intermediate.dense",
    "feed_forward.reduce": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def build_block(block: torch.nn.Module, seed: int) -> BertLayer:
    """Theirs with random weights, which ours gets too."""
    config = BertConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=20,
        is_decoder=True,
        add_cross_attention=True,
        attn_implementation="eager",
    )
    theirs = randomize(BertLayer(config), seed=seed).eval()
    given = theirs.state_dict()
    weights = {f"{our}.{kind}": given[f"{name}.{kind}"] for our, name in PIECES.items() for kind in ("weight", "bias")}
    assert len(weights) == len(given), "a tensor of theirs has no place in ours"
    block.load_state_dict(weights)
    return theirs


def test_equals_two_bert_layers_over_two_depths():
    torch.manual_seed(0)
    ours = randomize(AggregatorAdapter(16, 12, layers=[28, 18], num_heads=2, hidden_dim=20)).eval()
    theirs = [build_block(block, seed) for seed, block in enumerate(ours.blocks)]
    features = random_features(16, (3, 4), needs=ours.needs)
    states = features.tokens
    for layer, index in zip(theirs, (28, 18), strict=True):
        states = layer(states, encoder_hidden_states=features.layers[index])
    wanted = ours.project(ours.norm(states))
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(features, Context()).tokens, wanted, atol=1e-5, rtol=0)
