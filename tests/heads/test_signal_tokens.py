"""`[IMG0]` ...: which tokens are learned, which states are read, which targets fit."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import DataError, RecipeError, UserError
from mmunify.heads.signal_tokens import SignalTokenHead
from tests.heads.worlds import generate_along, make_model, output, picture, talk

KIND = "image"
MAPPER = {"name": "mapper", "num_queries": 5, "dim": 16, "depth": 1, "num_heads": 2, "out_dim": 12}


def example(folder):
    return {"num_tokens": 3, "connector": MAPPER}


def example_target(rng):
    return rng.normal(size=(5, 12)).astype(np.float16)


def learned_strings(llama_folder, **arguments):
    model, processor = make_model(llama_folder, {"image": {"name": "signal_tokens", **example(None), **arguments}})
    batch = processor([talk("a", output("image", np.zeros((5, 12))))])
    slots = batch.outputs["image"].slots[0]
    assert processor.decode(batch.input_ids[0][slots].tolist()) == "[IMG0][IMG1][IMG2]"
    return [int(label) != -100 for label in batch.labels[0][slots]]


@pytest.mark.parametrize(
    ("learned", "wanted"),
    [("first", [1, 0, 0]), ("all", [1, 1, 1]), ("none", [0, 0, 0]), ([0, 2], [1, 0, 1])],
)
def test_which_tokens_carry_text_loss(llama_folder, learned, wanted):
    assert learned_strings(llama_folder, learned=learned) == [bool(x) for x in wanted]


@pytest.mark.parametrize("reads", ["at", "before"])
@pytest.mark.parametrize("inputs", [True, False])
def test_states_at_or_before_the_tokens_with_their_embeddings_are_mapped(llama_folder, reads, inputs):
    node = {"name": "signal_tokens", **example(None), "reads": reads, "inputs": inputs}
    model, processor = make_model(llama_folder, {"image": node})
    batch = processor([talk("a", output("image", np.ones((5, 12))))])
    model.eval()
    embeds = model.embed(batch, model.encode(batch))
    hidden = model.backbone(embeds, batch.attention, batch.position_ids)
    places = batch.outputs["image"].slots[0].nonzero()[:, 0]
    states = hidden.last[:, places - int(reads == "before")] + (embeds[:, places] if inputs else 0)
    head = model.heads["image"]
    predicted = head.connector(states)
    report = model(batch)
    torch.testing.assert_close(report.outputs["image"].conditions.states, predicted)
    euclidean = (predicted - torch.ones(1, 5, 12)).norm(dim=-1).mean()
    torch.testing.assert_close(report.losses["image/euclidean"], euclidean)


def test_features_of_an_encoder_are_a_target_too(llama_folder):
    node = {"name": "signal_tokens", "num_tokens": 16, "target": "image", "loss": "cosine", "inputs": False}
    model, processor = make_model(llama_folder, {"image": node})
    batch = processor([talk("a", output("image", picture(np.random.default_rng(0))))])
    report = model.eval()(batch)
    from mmunify.parts import Context

    wanted = model.encoders["image"](batch.outputs["image"].target.unsqueeze(1), Context()).tokens
    predicted = report.outputs["image"].conditions.states
    torch.testing.assert_close(
        report.losses["image/cosine"], (1 - F.cosine_similarity(predicted, wanted, dim=-1)).mean()
    )


def test_stored_features_are_read_from_npy(llama_folder, tmp_path):
    model, processor = make_model(llama_folder, {"image": {"name": "signal_tokens", **example(None)}})
    features = np.arange(60, dtype=np.float16).reshape(5, 12)
    np.save(tmp_path / "a.npy", features)
    batch = processor([talk("a", output("image", tmp_path / "a.npy"))])
    assert torch.equal(batch.outputs["image"].target[0], torch.from_numpy(features).float())
    (tmp_path / "b.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="sample 'a': .*b.npy cannot be read as an array"):
        processor([talk("a", output("image", tmp_path / "b.npy"))])


def test_several_signal_heads_live_in_one_model(llama_folder, monkeypatch):
    """NExT-GPT's layout: image, video and sound tokens, each with a mapper of its own, beside SEED-X's queries."""
    connector = {**MAPPER, "num_queries": 2}
    signals = {
        kind: {"name": "signal_tokens", "tokens": f"<{kind}_{{:02d}}>", "num_tokens": num, "connector": connector}
        for kind, num in (("video", 4), ("audio", 2))
    }
    queries = {"name": "queries", "num_queries": 4}
    model, processor = make_model(llama_folder, {"image": queries, **signals})
    features = np.zeros((2, 12))
    rng = np.random.default_rng(0)
    samples = [
        talk("a", output("video", features), output("image", picture(rng))),
        talk("bb", output("audio", features), output("video", features), output("audio", features)),
    ]
    report = model.eval()(processor(samples))
    counts = {name: int(count) for name, count in report.counts.items() if "text" not in name}
    assert counts == {"image/mse": 1, "video/euclidean": 2, "audio/euclidean": 2}
    made = generate_along(model, processor, samples, monkeypatch)
    assert {node: tuple(x.shape) for node, x in made[0].predictions.items()} == {
        "video": (1, 2, 12),
        "image": (1, 4, 32),
    }
    assert made[1].text.count("<audio_00>") == 2 and "<audio_01>" not in made[1].text
    for node in ("image", "video", "audio"):
        got = torch.cat([answer.predictions[node] for answer in made if node in answer.predictions])
        torch.testing.assert_close(got, report.outputs[node].conditions.states, rtol=1e-3, atol=1e-4)


def test_new_rows_of_a_head_are_a_group_of_their_own(llama_folder):
    model, _ = make_model(llama_folder, {"image": {"name": "signal_tokens", **example(None)}})
    assert model.backbone.new_rows["signals_image"].shape == (3, 32)
    again, _ = make_model(llama_folder, {"image": {"name": "signal_tokens", **example(None)}})
    assert torch.equal(again.backbone.new_rows["signals_image"], model.backbone.new_rows["signals_image"])


def test_bad_input(llama_folder):
    with pytest.raises(UserError, match="no distance named 'l1'"):
        SignalTokenHead(8, connector=MAPPER, loss="l1")
    with pytest.raises(UserError, match=r"names \[3\]; its tokens are 0..2"):
        SignalTokenHead(8, connector=MAPPER, num_tokens=3, learned=[3])
    with pytest.raises(UserError, match="a {} in tokens"):
        SignalTokenHead(8, connector=MAPPER, tokens="[IMG]")
    with pytest.raises(UserError, match="the width that a signal_tokens head predicts is not known"):
        SignalTokenHead(8, 16)
    with pytest.raises(RecipeError, match="connector.name: no adapter named 'maper'; did you mean 'mapper'"):
        SignalTokenHead(8, connector={"name": "maper", "out_dim": 4})
    model, processor = make_model(llama_folder, {"image": {"name": "signal_tokens", **example(None)}})
    batch = processor([talk("a", output("image", np.zeros((4, 12))))])
    with pytest.raises(DataError, match=r"learn features of shape \(5, 12\), and their targets are {\(4, 12\)}"):
        model(batch)
