"""Contrastive retrieval at `[IMG0]`, alone and beside the signal tokens and the decision of GILL."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError, UserError
from mmunify.heads.retrieval import RetrievalHead, search
from mmunify.types import Features
from tests.heads.worlds import generate_along, make_model, output, picture, talk

KIND = "image"
MAPPER = {"name": "mapper", "num_queries": 3, "dim": 16, "depth": 1, "num_heads": 2, "out_dim": 6}
GILL = {
    "image": {"name": "signal_tokens", "num_tokens": 4, "connector": MAPPER},
    "lookup": {"name": "retrieval", "kind": "image", "target": "image", "dim": 8},
    "decision": {"name": "decision"},
}


def example(folder):
    return {"dim": 8, "target": "image"}


def example_target(rng):
    return picture(rng)


def pairs(*names):
    return [talk(name, output("image", picture(np.random.default_rng(len(name))))) for name in names]


def test_loss_is_clips_both_ways(llama_folder):
    model, processor = make_model(llama_folder, {"image": {"name": "retrieval", "dim": 8}})
    batch = processor(pairs("a", "bb", "ccc"))
    report = model.eval()(batch)
    head = model.heads["image"]
    hidden = model.backbone(model.embed(batch, model.encode(batch)), batch.attention, batch.position_ids)
    texts = F.normalize(head.project_text(hidden.last[batch.outputs["image"].slots]), dim=-1)
    from mmunify.parts import Context

    encoded = model.encoders["image"](batch.outputs["image"].target.unsqueeze(1), Context())
    pictures = F.normalize(head.project_picture(encoded.pooled), dim=-1)
    logits = texts @ pictures.T / 0.07
    wanted = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits.T, torch.arange(3))) / 2
    torch.testing.assert_close(report.losses["image/contrastive"] / report.counts["image/contrastive"], wanted)
    assert int(report.outputs["image"].predictions["correct"]) == int((logits.argmax(1) == torch.arange(3)).sum())


def test_three_heads_of_gill_read_one_slot(llama_folder, monkeypatch):
    model, processor = make_model(llama_folder, GILL)
    model.eval()
    features = np.zeros((3, 6))
    samples = [
        talk(name, output("image", {"image": features, "lookup": picture(np.random.default_rng(i))}))
        for i, name in enumerate(("a", "bb"))
    ]
    batch = processor(samples)
    signal, lookup = (batch.outputs[node].slots for node in ("image", "lookup"))
    assert signal.sum(1).tolist() == [4, 4] and lookup.sum(1).tolist() == [1, 1]
    assert bool((signal & lookup).sum(1).eq(1).all())  # placed once
    report = model(batch)
    made = generate_along(model, processor, samples, monkeypatch)
    shapes = {node: tuple(made[0].predictions[node].shape) for node in GILL}
    assert shapes == {"image": (1, 3, 6), "lookup": (1, 8), "decision": (1, 2)}
    got = torch.cat([answer.predictions["image"] for answer in made])
    torch.testing.assert_close(got, report.outputs["image"].conditions.states, rtol=1e-3, atol=1e-4)
    decisions = processor([talk("a", output("decision", 1))])
    assert int(model(decisions).counts["decision/cross_entropy"]) == 1


def test_search_ranks_by_cosine_and_leaves_out_what_was_seen():
    table = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]]), dim=-1)
    texts = torch.tensor([[1.0, 0.0]])
    assert search(texts, table, num=2)[0].tolist() == [[0, 1]]
    rows, cosines = search(texts, table, num=5, seen=[0])
    assert rows.tolist() == [[1, 2]] and bool((cosines[:, 0] > 0.9).all())


def test_pictures_of_an_encoder_without_a_pooled_vector_are_averaged():
    head = RetrievalHead(8, 6, dim=4)
    tokens = torch.randn(2, 5, 6)
    made = head.embed_pictures(Features(tokens=tokens))
    torch.testing.assert_close(made, F.normalize(head.project_picture(tokens.mean(1)), dim=-1))


def test_bad_input(llama_folder):
    with pytest.raises(UserError, match="temperature of a retrieval head must be above 0, got 0"):
        RetrievalHead(8, 6, temperature=0)
    model, processor = make_model(llama_folder, GILL)
    partial = talk("a", output("image", {"image": np.zeros((3, 6))}))
    with pytest.raises(DataError, match="1 output items of node 'lookup' have no target picture"):
        model(processor([partial]))
