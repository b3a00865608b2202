"""Connectors that read what an output starts from: the same in training and in answers, for every head that has one."""

import numpy as np
import pytest
import torch

from mmunify.heads._sources import output_sources
from mmunify.testing import randomize
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
