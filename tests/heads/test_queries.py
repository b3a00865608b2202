"""Learnable queries: slots, pooled targets, losses, messages."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import DataError, UserError
from mmunify.heads.queries import QueryHead, pool_tokens
from mmunify.parts import Context
from mmunify.types import Features


def test_loss_is_the_squared_distance_to_the_frozen_towers_features(model, processor, make_sample):
    batch = processor([make_sample("apple", 1, 2)])
    report = model.eval()(batch)
    target = model.encoders["image"](batch.outputs["image"].target.unsqueeze(1), Context()).tokens
    predicted = report.outputs["image"].conditions.states
    assert predicted.shape == target.shape == (2, 16, 32)
    torch.testing.assert_close(report.losses["image/mse"], (predicted - target).square().mean((1, 2)).sum())
    assert not target.requires_grad or predicted.requires_grad


def test_gradients_reach_queries_and_backbone(model, processor, make_sample):
    model.weights = {"text": 0.0}
    model(processor([make_sample("apple", 0, 1)])).total.backward()
    assert float(model.heads["image"].queries.grad.abs().sum()) > 0
    assert float(model.backbone.lm.model.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0


def test_the_model_learns_to_open_the_slot_but_not_to_fill_it(model, processor, make_sample):
    batch = processor([make_sample("apple", 0, 1)])
    opener, closer = (processor.encoder.ids(s)[0] for s in ("<img>", "</img>"))
    assert opener in batch.labels and closer in batch.input_ids and closer not in batch.labels
    assert (batch.labels[batch.outputs["image"].slots] == -100).all()


def test_fewer_queries_learn_a_pooled_target(nodes, make_sample):
    heads = {"text": {"name": "text"}, "image": {"name": "queries", "num_queries": 4, "loss": "cosine"}}
    model = compose(**{**nodes, "heads": heads})
    batch = Processor(model.spec(), model.backbone.tokenizer, model.tokens)([make_sample("apple", 0, 1)])
    loss = model(batch).losses["image/cosine"]
    assert 0 < float(loss.detach()) < 2


def test_pooling_averages_neighbours():
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    pooled = pool_tokens(Features(tokens=tokens, grid=(4, 4)), 4)
    assert pooled[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(UserError, match=r"5 queries can't be matched with 16 target tokens"):
        pool_tokens(Features(tokens=tokens, grid=(4, 4)), 5)


def test_bad_input(model, processor, make_sample):
    with pytest.raises(UserError, match="'mse' or 'cosine', got 'l3'"):
        QueryHead(4, 4, loss="l3")
    from dataclasses import replace

    batch = processor([make_sample("apple", 0, 1)])
    blind = replace(batch, outputs={"image": replace(batch.outputs["image"], target=None)})
    with pytest.raises(DataError, match="1 output items of node 'image' have no target"):
        model(blind)
