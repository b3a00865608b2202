"""Connectors that read what an output starts from: the same in training and in answers, for every head that has one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.heads._sources import MAX_GAIN, EditGain, output_sources
from mmunify.parts import Context
from mmunify.testing import randomize
from mmunify.types import Features
from tests.heads.worlds import generate_along, make_model, output, picture, predictions, talk

OVER = {"name": "over_source", "adapter": {"name": "mlp", "depth": 2}}
HEADS = {
    "queries": {"num_queries": 16, "connector": OVER},
    "signal_tokens": {"num_tokens": 16, "connector": OVER, "target": "image", "loss": "mse"},
    "hidden_states": {"num_states": 16, "connector": OVER, "loss": "mse"},
}


def world(llama_folder, name):
    model, processor = make_model(llama_folder, {"image": {"name": name, **HEADS[name]}})
    randomize(model)
    rng = np.random.default_rng(0)
    edit = talk("edit", output("image", picture(rng), condition=1), pictures=2)
    draw = talk("draw", output("image", picture(rng)), pictures=0)
    return model, processor, edit, draw


@pytest.mark.parametrize("name", HEADS)
def test_an_edit_lies_over_its_source_in_training_and_in_answers_alike(name, llama_folder, monkeypatch):
    """Rows with and without a picture are answered together, each as if alone."""
    model, processor, edit, draw = world(llama_folder, name)
    made = predictions(model, processor([edit, draw]), "image")
    assert made.shape == (2, 16, 32)
    written = [answer.predictions["image"] for answer in generate_along(model, processor, [edit, draw], monkeypatch)]
    torch.testing.assert_close(torch.cat(written), made, atol=1e-4, rtol=1e-4)
    alone = generate_along(model, processor, [edit], monkeypatch)[0].predictions["image"]
    torch.testing.assert_close(alone[0], made[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_an_edit_that_changes_nothing_is_its_source(name, llama_folder):
    model, processor, edit, draw = world(llama_folder, name)
    last = [layer for layer in model.heads["image"].connector.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias[-1] = 1e4
    batch = processor([draw, edit])
    made, seen = predictions(model, batch, "image"), model.encode(batch)["image"].tokens
    torch.testing.assert_close(made[1], seen[1])
    assert not torch.isclose(made[0], seen).all(2).any()


def test_what_is_not_of_the_targets_kind_is_no_source(llama_folder):
    """Items that start from a clip say so: number 1 of the clips is not number 1 of the pictures."""
    model, processor, edit, draw = world(llama_folder, "queries")
    head, batch = model.heads["image"], processor([draw, edit])
    assert head.eye == "image" and batch.outputs["image"].condition == (None, ("image", 1))
    batch.outputs["image"] = replace(batch.outputs["image"], condition=(None, ("video", 1)))
    assert output_sources(head, batch, model.encode(batch)) is None


@pytest.mark.parametrize("inside", [True, False])
def test_a_connector_of_several_parts(inside, llama_folder):
    node = {"name": "series", "parts": [{"name": "mlp", "out_dim": 32}, {"name": "additive", "grid": 4, "dim": 16}]}
    connector = {"name": "over_source", "adapter": node} if inside else node
    heads = {"image": {"name": "queries", "num_queries": 4, "connector": connector}}
    model, processor = make_model(llama_folder, heads)
    rng = np.random.default_rng(0)
    batch = processor([talk("edit", output("image", picture(rng), condition=0))])
    assert predictions(model, batch, "image").shape == (1, 16, 32)


def test_a_head_without_a_target_has_no_sources(llama_folder):
    head = {"name": "signal_tokens", "connector": {**OVER, "out_dim": 8}, "loss": "mse"}
    with pytest.raises(UserError, match=r"'over_source' reads the features.*name it: `target: image`"):
        make_model(llama_folder, {"image": head})


def test_only_connectors_that_ask_get_sources(llama_folder):
    model, processor, edit, draw = world(llama_folder, "queries")
    head, batch = model.heads["image"], processor([draw, edit])
    features = model.encode(batch)
    given = output_sources(head, batch, features)
    assert given is not None and given.mask is not None
    assert given.mask.tolist() == [[False] * 16, [True] * 16]
    assert output_sources(head, processor([draw]), features) is None
    plain, _ = make_model(llama_folder, {"image": {"name": "queries", "num_queries": 16}})
    assert output_sources(plain.heads["image"], batch, features) is None


def test_small_changes_count_beside_new_pictures():
    """By target over change, to a power, within bounds; an item without a source counts once."""
    wanted = torch.full((4, 2, 3), 6.0)
    source = Features(tokens=wanted - torch.tensor([6.0, 2.0, 0.0, 2.0])[:, None, None])
    given = replace(source, mask=torch.tensor([True, True, True, False])[:, None].expand(4, 2))
    for gain, factors in ((0.0, [1, 1, 1, 1]), (0.5, [1, 3, MAX_GAIN**0.5, 1]), (1.0, [1, 9, MAX_GAIN, 1])):
        torch.testing.assert_close(EditGain(gain)(wanted, given).flatten(), torch.tensor(factors).float())
    assert EditGain(1.0)(wanted, source)[3] == 9
    assert EditGain(1.0)(wanted, None).tolist() == [[[1.0]]] * 4


def test_the_loss_of_an_edit_is_multiplied(llama_folder):
    losses = {}
    for gain in (0.0, 1.0):
        loss = {"name": "mse", "edit_gain": gain}
        model, processor = make_model(llama_folder, {"image": {"name": "queries", **HEADS["queries"], "loss": loss}})
        randomize(model)
        rng = np.random.default_rng(0)
        edit = talk("edit", output("image", picture(rng), condition=0))
        draw = talk("draw", output("image", picture(rng)), pictures=0)
        batches = [processor([sample]) for sample in (edit, draw)]
        losses[gain] = [model(batch).losses["image/mse"] for batch in batches]
        seen, target = (model.encode(batches[0])["image"].tokens, batches[0].outputs["image"].target)
        wanted = model.encoders["image"](target.unsqueeze(1), Context()).tokens
    factor = wanted.square().mean() / (wanted - seen).square().mean()
    torch.testing.assert_close(losses[1.0][0], losses[0.0][0] * factor)
    torch.testing.assert_close(losses[1.0][1], losses[0.0][1])


@pytest.mark.parametrize(("loss", "connector"), [("cosine", OVER), ("mse", None), ("none", OVER)])
def test_a_gain_that_would_do_nothing_is_refused(loss, connector, llama_folder):
    node = {"name": "queries", "num_queries": 16, "connector": connector, "loss": {"name": loss, "edit_gain": 0.5}}
    with pytest.raises(
        UserError, match=f"edit_gain=0.5 scales the loss mse.*this head has the loss {loss}, or another"
    ):
        make_model(llama_folder, {"image": node})


def test_a_gain_is_a_number_and_not_below_zero(llama_folder):
    with pytest.raises(UserError, match="edit_gain of a head is at least 0, which changes nothing; got -1"):
        EditGain(-1.0)
    node = {"name": "queries", **HEADS["queries"], "loss": {"name": "mse", "edit_gian": 0.5}}
    with pytest.raises(UserError, match="EditGain takes no edit_gian; did you mean edit_gain"):
        make_model(llama_folder, {"image": node})


def test_features_of_zero_have_a_gain_that_is_finite():
    zeros = torch.zeros(1, 2, 3)
    assert EditGain(0.5)(zeros, Features(tokens=zeros)).isfinite().all()
