"""The text head against cross-entropy over full logits."""

import pytest
import torch
from torch.nn import functional as F

from mmunify.heads.text import TextHead


@pytest.fixture
def pair(model, processor, make_sample):
    batch = processor([make_sample("apple"), make_sample("two pictures", 2)])
    hidden = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids)
    return hidden, batch


def test_equals_cross_entropy_over_all_logits(model, pair):
    hidden, batch = pair
    made = TextHead()(hidden, batch, {}, model.backbone.unembed)
    logits = model.backbone.unembed(hidden.last.flatten(0, 1)).unflatten(0, batch.input_ids.shape)
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(made.losses["cross_entropy"], wanted)
    learned = batch.labels[:, 1:] != -100
    hits = (logits[:, :-1].argmax(-1) == batch.labels[:, 1:])[learned].sum()
    assert int(made.predictions["correct"]) == int(hits)
    sums, counts = made.documents["cross_entropy"]
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(sums, each.unflatten(0, learned.shape).sum(1))
    assert counts.tolist() == learned.sum(1).tolist()


def test_chunks_change_neither_loss_nor_gradients(model, pair):
    hidden, batch = pair
    gradients, losses = [], []
    for chunk in (3, 4096):
        model.zero_grad()
        loss = TextHead(chunk=chunk)(hidden, batch, {}, model.backbone.unembed).losses["cross_entropy"]
        (gradient,) = torch.autograd.grad(loss, hidden.last, retain_graph=True)
        gradients.append(gradient)
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_nothing_supervised_is_a_zero_that_still_reaches_the_backbone(model, pair):
    hidden, batch = pair
    from dataclasses import replace

    made = TextHead()(hidden, replace(batch, labels=torch.full_like(batch.labels, -100)), {}, model.backbone.unembed)
    assert float(made.losses["cross_entropy"].detach()) == 0 and int(made.counts["cross_entropy"]) == 0
    assert made.documents["cross_entropy"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    made.losses["cross_entropy"].backward()


def test_without_backbone_it_says_so(pair):
    with pytest.raises(TypeError, match="needs a backbone"):
        TextHead()(None, pair[1], {}, None)
