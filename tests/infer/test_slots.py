"""Output slots of heads that read written strings, in generation."""

import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.infer.generate import generate
from mmunify.infer.sequence import SeenMedia
from mmunify.infer.slots import forbidden_ids, inside_ids, slot_kinds
from mmunify.testing import randomize
from mmunify.types import Features
from tests.heads.worlds import generate_along, make_model, output, picture, talk

TINY = {"name": "two_way", "dim": 16, "depth": 1, "num_heads": 2, "steps": 1}
HEADS = {
    "image": {"name": "queries", "num_queries": 4, "rows": "<q_{}>"},
    "mask": {"name": "masks", "decoder": TINY},
    "video": {"name": "signal_tokens", "num_tokens": 3, "tokens": "[V{}]", "connector": {"name": "mlp", "out_dim": 5}},
}


@pytest.fixture
def world(llama_folder):
    return make_model(llama_folder, HEADS)


def mixed(processor):
    rng = np.random.default_rng(0)
    mask = np.ones((16, 24), bool)
    return [
        talk("a", output("mask", mask), output("image", picture(rng)), output("mask", mask)),
        talk("bb", output("video", np.zeros((3, 5))), output("mask", mask), pictures=2),
    ]


def test_openers_are_free_and_what_follows_is_not(world):
    model, processor = world
    kinds = slot_kinds(model, processor)
    words = {processor.tokenizer.decode([number]): kind for number, kind in kinds.items()}
    assert {word: list(kind.heads) for word, kind in words.items()} == {
        "<img>": ["image"],
        "[SEG]": ["mask"],
        "[V0]": ["video"],
    }
    forbidden = processor.tokenizer.convert_ids_to_tokens(forbidden_ids(processor, kinds))
    assert {"<slot>", "<image>", "</img>", "<q_0>", "<q_3>", "[V1]", "[V2]"} <= set(forbidden)
    assert not {"<img>", "[SEG]", "[V0]"} & set(forbidden)
    inside = processor.tokenizer.convert_ids_to_tokens(inside_ids(processor, words["[V0]"].spec))
    assert inside == ["[V1]", "[V2]"]


def test_heads_of_all_kinds_in_one_reply_equal_the_forward_pass(world, monkeypatch):
    model, processor = world
    randomize(model, seed=1)
    samples = mixed(processor)
    report = model.eval()(processor(samples))
    made = generate_along(model, processor, samples, monkeypatch)
    assert [sorted(answer.predictions) for answer in made] == [["image", "mask"], ["mask", "video"]]
    wanted = {
        "mask": report.outputs["mask"].predictions["masks"],
        "image": report.outputs["image"].conditions.states,
        "video": report.outputs["video"].conditions.states,
    }
    for node, states in wanted.items():
        got = torch.cat([answer.predictions[node] for answer in made if node in answer.predictions])
        torch.testing.assert_close(got, states, rtol=1e-3, atol=1e-3)


def test_a_reply_opens_no_more_slots_than_it_may(world, monkeypatch):
    model, processor = world
    (opener,) = processor.encoder.ids("[SEG]")

    def unembed(states, rows=None):
        logits = torch.zeros(len(states), model.backbone.vocab_size)
        logits[:, opener], logits[:, 70] = 2.0, 1.0
        return logits

    monkeypatch.setattr(model.backbone, "unembed", unembed)
    prompt = talk("a")
    prompt = type(prompt)(turns=prompt.turns[:1])
    (made,) = generate(model, processor, [prompt], max_new_tokens=6, max_outputs=2)
    assert made.ids == [opener, opener, 70, 70, 70, 70]
    assert len(made.predictions["mask"]) == 2


def test_the_latest_medium_of_every_row_is_looked_at():
    features = Features(tokens=torch.arange(4.0).reshape(4, 1, 1), grid=(1, 1))
    media = SeenMedia({"sam": features}, {"sam": torch.tensor([0, 0, 1, 2])})
    assert media.latest("sam", torch.tensor([0, 2])).tokens.flatten().tolist() == [1.0, 3.0]
    with pytest.raises(UserError, match="encoder node 'sam' in its prompt; a prompt has none"):
        media.latest("sam", torch.tensor([3]))
    with pytest.raises(UserError, match="encoder node 'clip' in the prompt, and there is none"):
        media.latest("clip", torch.tensor([0]))
