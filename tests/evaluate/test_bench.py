"""A real (untrained) bundle under evaluation: prompts go in, experts and de-tokenizers carry answers out."""

import numpy as np
import pytest
import torch

from mmunify.checkpoint import Bundle
from mmunify.composer import compose
from mmunify.evaluate.bench import make_bench
from mmunify.evaluate.run import evaluate
from mmunify.recipe import Recipe
from mmunify.tokens import TokenRegistry
from tests.evaluate.worlds import DATA, READER, prompts, truth_of


def bundle_of(model):
    return Bundle(Recipe.from_dict({}), model)


@pytest.fixture
def bundle(nodes):
    nodes |= {
        "heads": {"text": {"name": "text"}, "image": {"name": "task_tokens"}},
        "tokens": TokenRegistry(["segment", "layout_to_image", "generate_image"]),
    }
    return bundle_of(compose(**nodes))


def bench_of(bundle):
    return make_bench(bundle, DATA, batch_size=4, max_new_tokens=6, seed=0, report=lambda task, total: None)


def test_prompts_are_answered_the_same_way_every_time(bundle):
    asked = [prompt.sample for prompt in prompts("caption", 3)]
    bench = bench_of(bundle)
    for blank in (False, True):
        first, again = bench.respond(asked, blank), bench.respond(asked, blank)
        assert [reply.ids for reply in first] == [reply.ids for reply in again]
        assert len(first) == 3
        assert all(len(reply.ids) <= 6 for reply in first)


def test_true_calls_reach_the_shipped_experts(bundle):
    bench = bench_of(bundle)
    for task, kind in (("segment", "mask"), ("layout_to_image", "image"), ("generate_image", "image")):
        prompt = prompts(task, 1)[0]
        (artifact,) = bench.run(bench.reader.read(prompt, truth_of(prompt)))
        assert artifact.kind == kind
        assert artifact.data.shape[:2] == (64, 64)


def test_a_call_that_fails_leaves_nothing(bundle):
    prompt = prompts("segment", 1)[0]
    assert not bench_of(bundle).run(READER.read(prompt, "<segment>it</segment>"))


def test_filled_slots_become_pictures(nodes):
    nodes["detokenizers"] = {"image": {"name": "pixel_decoder", "from": "heads.image", "size": 16, "grid": 4}}
    model = compose(**nodes)
    bench = bench_of(bundle_of(model))
    prompt = prompts("generate_image", 1)[0]
    states = torch.zeros(1, 16, model.encoders["image"].out_dim)
    (artifact,) = bench.run(bench.reader.read(prompt, "Sure. <img></img>", {"image": states}))
    assert artifact.kind == "image"
    assert artifact.data.dtype == np.uint8
    assert bench.reader.read(prompt, "").asked == ("image",)


def test_an_untrained_model_scores_near_nothing(bundle):
    scores = evaluate(bundle, ["refer", "segment", "routing"], num_samples=2, progress=False, max_new_tokens=4)
    assert scores["refer"]["precision_at_50"].value == 0.0
    assert scores["segment"]["ciou"].value < 0.5
    assert scores["segment"]["ciou_truth"].value > 0.8
    # the tasks that this model has no tokens for are left out, dialogues that need them too
    assert scores["routing"]["accuracy"].n < 2 * 11
