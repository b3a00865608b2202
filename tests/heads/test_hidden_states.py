"""A range of hidden states as a condition."""

import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.heads.hidden_states import HiddenStateHead
from tests.heads.worlds import make_model, output, picture, talk

KIND = "image"


def example(folder):
    return {"num_states": 16, "target": "image", "layer": 1}


def example_target(rng):
    return picture(rng)


@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_the_range_ends_with_the_opening_string(llama_folder, layer):
    model, processor = make_model(llama_folder, {"image": {"name": "hidden_states", "num_states": 6, "layer": layer}})
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    model.eval()
    opener = processor.encoder.ids("<img>")[0]
    (place,) = batch.outputs["image"].slots[0].nonzero()[:, 0].tolist()
    assert int(batch.input_ids[0, place]) == int(batch.labels[0, place]) == opener
    layers = [] if layer == -1 else [layer]
    embeds = model.embed(batch, model.encode(batch))
    hidden = model.backbone(embeds, batch.attention, batch.position_ids, layers=layers)
    states = hidden.last if layer == -1 else hidden.layers[layer]
    wanted = model.heads["image"].connector(states[:, place - 5 : place + 1])
    torch.testing.assert_close(model(batch).outputs["image"].conditions.states, wanted)


def test_a_short_document_begins_with_zeros_that_queries_do_not_see(llama_folder):
    sample = talk("a", output("image", picture(np.random.default_rng(0))), pictures=0)
    resampler = {"name": "perceiver", "num_queries": 3, "depth": 1, "num_heads": 2, "head_dim": 8}
    conditions = []
    for length in (40, 90):
        node = {"name": "hidden_states", "num_states": length, "connector": resampler}
        model, processor = make_model(llama_folder, {"image": node})
        conditions.append(model.eval()(processor([sample])).outputs["image"].conditions.states)
    torch.testing.assert_close(*conditions)


def test_a_loss_compares_with_the_targets_features(llama_folder):
    node = {"name": "hidden_states", "num_states": 16, "loss": "mse"}
    model, processor = make_model(llama_folder, {"image": node})
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    report = model.eval()(batch)
    from mmunify.parts import Context

    wanted = model.encoders["image"](batch.outputs["image"].target.unsqueeze(1), Context()).tokens
    predicted = report.outputs["image"].conditions.states
    torch.testing.assert_close(report.losses["image/mse"], (predicted - wanted).square().mean())


def test_bad_input():
    with pytest.raises(UserError, match="num_states of a hidden_states head is at least 1, got 0"):
        HiddenStateHead(8, 8, num_states=0)
    with pytest.raises(UserError, match="no distance named 'kl'"):
        HiddenStateHead(8, 8, loss="kl")
