"""Learnable queries: slots, pooled targets, losses, messages."""

import numpy as np
import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import DataError, RecipeError, UserError
from mmunify.heads.queries import QueryHead
from mmunify.parts import Context
from mmunify.registry import HEADS
from mmunify.testing import randomize
from mmunify.types import Output, Sample, Text, Turn
from tests.heads.worlds import generate_along, make_model, output, picture, talk

KIND = "image"


def example(folder):
    return {"num_queries": 4, "rows": "<img_{:05d}>", "target": "image"}


def example_target(rng):
    return picture(rng)


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


def test_bad_input(model, processor, make_sample):
    with pytest.raises(UserError, match="queries head: no distance named 'l3'. Known: mse, cosine"):
        QueryHead(4, 4, loss="l3")
    from dataclasses import replace

    batch = processor([make_sample("apple", 0, 1)])
    blind = replace(batch, outputs={"image": replace(batch.outputs["image"], target=None)})
    with pytest.raises(DataError, match="1 output items of node 'image' have no target"):
        model(blind)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("mse", lambda p, t: (p - t).square().mean()),
        ("euclidean", lambda p, t: (p - t).norm(dim=-1).mean()),
        ("unit_mse", lambda p, t: (p - torch.nn.functional.normalize(t, dim=-1)).square().mean()),
        ("cosine", lambda p, t: (1 - torch.nn.functional.cosine_similarity(p, t, dim=-1)).mean()),
    ],
)
def test_losses_by_hand(llama_folder, loss, by_hand):
    model, processor = make_model(llama_folder, {"image": {"name": "queries", "num_queries": 16, "loss": loss}})
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    report = model.eval()(batch)
    target = model.encoders["image"](batch.outputs["image"].target.unsqueeze(1), Context()).tokens
    torch.testing.assert_close(
        report.losses[f"image/{loss}"], by_hand(report.outputs["image"].conditions.states, target)
    )


CONNECTORS = [
    {"name": "mlp", "depth": 3},
    {"name": "resampler", "num_queries": 4, "num_heads": 4},
    {"name": "mapper", "num_queries": 4, "dim": 16, "depth": 1, "num_heads": 2},
    {"name": "encoder_mlp", "depth": 1, "num_heads": 2},
    {"name": "qformer", "num_queries": 4, "depth": 1, "num_heads": 2},
]


@pytest.mark.parametrize("connector", CONNECTORS, ids=lambda node: node["name"])
@pytest.mark.parametrize("rows", [None, "<q_{}>"])
@pytest.mark.parametrize("attention", ["causal", "full"])
def test_connectors_rows_and_attention_generate_what_they_learn(llama_folder, monkeypatch, connector, rows, attention):
    node = {"name": "queries", "num_queries": 4, "connector": connector, "rows": rows, "attention": attention}
    model, processor = make_model(llama_folder, {"image": node})
    randomize(model, seed=2)
    samples = [talk("a", output("image", picture(np.random.default_rng(0)))), talk("none")]
    wanted = model.eval()(processor(samples)).outputs["image"].conditions.states
    made = generate_along(model, processor, samples, monkeypatch)[0].predictions["image"]
    assert made.shape == (1, 4, 32)
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)


def test_full_attention_lets_the_first_query_see_the_last(llama_folder):
    firsts = []
    for attention in ("causal", "full"):
        model, processor = make_model(
            llama_folder, {"image": {"name": "queries", "num_queries": 4, "attention": attention}}
        )
        batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
        states = []
        for bump in (0.0, 1.0):
            with torch.no_grad():
                model.heads["image"].queries[-1] += bump
            states.append(model.eval()(batch).outputs["image"].conditions.states[0, 0])
        firsts.append(bool(torch.allclose(*states, atol=1e-6)))
    assert firsts == [True, False]


def test_vocabulary_rows_have_no_parameter_and_learn_as_rows(llama_folder):
    model, processor = make_model(llama_folder, {"image": {"name": "queries", **example(None)}})
    assert "queries" not in dict(model.heads["image"].named_parameters())
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    slots = batch.outputs["image"].slots
    assert processor.decode(batch.input_ids[slots].tolist()) == "".join(f"<img_{i:05d}>" for i in range(4))
    assert bool((batch.labels[slots] == -100).all())
    model.train()(batch).losses["image/mse"].backward()
    assert bool(model.backbone.new_rows["signals_image"].grad.abs().sum(1).gt(0).all())


def test_masking_rules_of_seedx_on_a_written_out_example(llama_folder):
    """A caption is no target of the text-to-image samples; `<img>` and the end are; queries and `</img>` are not."""
    heads = {"image": {"name": "queries", "num_queries": 4, "rows": "<img_{:05d}>"}}
    model, processor = make_model(llama_folder, heads)
    drawn = Output(kind="image", target=picture(np.random.default_rng(0)))
    quiet = Text(text="ok ", learned=False)
    turns = (Turn(role="user", parts=(Text(text="hi"),)), Turn(role="assistant", parts=(quiet, drawn)))
    batch = processor([Sample(turns=turns, id="written out")])
    length = int(batch.attention.valid.sum())
    rows = zip(
        batch.input_ids[0, :length].tolist(),
        batch.labels[0, :length].tolist(),
        batch.outputs["image"].slots[0].tolist(),
        strict=False,
    )
    said = [(processor.tokenizer.decode([number]), label != -100, place) for number, label, place in rows]
    prompt = ["<s>", *"USER: hi ASSISTANT: ok "]
    wanted = [(char, False, False) for char in prompt]
    wanted += [("<img>", True, False)]
    wanted += [(f"<img_{i:05d}>", False, True) for i in range(4)]
    wanted += [("</img>", False, False), ("</s>", True, False)]
    assert said == wanted


def test_parameters_of_seedx():
    """Output resampler 5120 -> 4096 of 64 queries: 88.4 M; the input one 4096 -> 5120: 126.2 M."""
    from mmunify.registry import ADAPTERS

    node = {"name": "resampler", "num_queries": 64, "num_heads": 32}
    with torch.device("meta"):
        head = QueryHead(5120, 4096, connector=node, rows="<img_{:05d}>", pool="1d")
        entry = ADAPTERS.build(node, in_dim=4096, out_dim=5120)
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == 88.4
    assert round(sum(p.numel() for p in entry.parameters()) / 1e6, 1) == 126.2


def test_a_connector_with_a_fault_is_named():
    with pytest.raises(RecipeError, match="connector.num_querys: ResamplerAdapter takes no num_querys; did you mean"):
        QueryHead(16, 16, connector={"name": "resampler", "num_querys": 4})


def test_features_can_be_drawn_by_flow_matching(llama_folder, monkeypatch):
    head = {"name": "queries", "num_queries": 4, "loss": {"name": "flow", "depth": 1, "steps": 3}}
    model, processor = make_model(llama_folder, {"image": head})
    rng = np.random.default_rng(0)
    samples = [
        talk(name, *(output("image", picture(rng)) for _ in range(number))) for name, number in (("a", 2), ("b", 1))
    ]
    report = model.train()(processor(samples))
    assert float(report.losses["image/flow"].detach()) > 0 and int(report.counts["image/flow"]) == 3
    assert report.outputs["image"].conditions.states.shape == (3, 4, 32)
    report.total.backward()
    assert all(p.grad is not None for p in model.heads["image"].parameters())
    alone = [model(processor([sample])).losses["image/flow"] for sample in samples]
    torch.testing.assert_close(sum(alone), report.losses["image/flow"], rtol=1e-4, atol=1e-4)
    together = generate_along(model.eval(), processor, samples, monkeypatch)
    (single,) = generate_along(model, processor, samples[1:], monkeypatch)
    torch.testing.assert_close(together[1].predictions["image"], single.predictions["image"], rtol=1e-3, atol=1e-4)
    model.train()(processor([talk("nothing")])).total.backward()


def test_without_a_loss_a_detokenizer_teaches_it_and_no_target_is_encoded(llama_folder, monkeypatch):
    model, processor = make_model(llama_folder, {"image": {"name": "queries", "num_queries": 4, "loss": "none"}})
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    calls = []
    forward = model.encoders["image"].forward
    monkeypatch.setattr(model.encoders["image"], "forward", lambda *a: calls.append(1) or forward(*a))
    report = model.train()(batch)
    assert len(calls) == 1 and "image" in report.outputs and set(report.losses) == {"text/cross_entropy"}


@pytest.mark.parametrize("name", ["queries", "hidden_states"])
def test_a_slot_that_never_closes_is_refused(name):
    with pytest.raises(UserError, match=f"opens='img' of a {name} head is no tag, so its slot would never close"):
        HEADS.get(name)(8, 8, opens="img")


def test_a_connector_of_another_width_than_the_target_is_refused():
    with pytest.raises(
        UserError, match="makes features of width 7, and its loss compares them with a target's of width 8"
    ):
        QueryHead(8, 8, connector={"name": "mlp", "out_dim": 7})
    assert QueryHead(8, 8, loss="none", connector={"name": "mlp", "out_dim": 7}).output_shape == (64, 7)
