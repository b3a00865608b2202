"""De-tokenizers and what they draw from: targets, sources, features, grey pictures, captions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import DataError, RecipeError
from mmunify.heads._features import pool_tokens
from mmunify.links import pixels
from mmunify.parts import Context, Detokenizer
from mmunify.registry import DETOKENIZERS
from mmunify.types import Features, HeadOutput, Media, Output, Preprocess, Sample, Text, Turn

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


class Recorder(Detokenizer):
    """Remembers what it was given."""

    def __init__(
        self,
        in_dim: int,
        needs: list[str] = [],  # noqa: B006
        size: int = 0,
        num_states: int | None = None,
        reads_target: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.needs, self.num_states, self.reads_target = in_dim, frozenset(needs), num_states, reads_target
        self.preprocess = Preprocess(size=(size, size), **PLAIN) if size else None
        self.weight = nn.Parameter(torch.zeros(in_dim))

    def loss(self, target, condition, draw):
        self.target, self.condition, self.keys = target, condition, draw.keys
        loss = (condition.states * self.weight).sum()
        return HeadOutput(losses={"own": loss}, counts={"own": loss.new_tensor(len(condition.states))})

    def generate(self, condition, guidance={}, seed=0):  # noqa: B006
        self.condition = condition
        return condition.states.new_zeros(len(condition.states), 3, 8, 8)


@pytest.fixture
def world(nodes):
    """world(detokenizer node, head node): model in training, recorder, processor."""

    def make(node, head=None):
        heads = {"text": {"name": "text"}, "image": head or {"name": "queries", "num_queries": 16}}
        with DETOKENIZERS.temporary("recorder", Recorder):
            model = compose(**{**nodes, "heads": heads, "detokenizers": {"image": {"name": "recorder", **node}}})
        model.encoders.requires_grad_(False)
        return (
            model.train(),
            model.detokenizers["image"],
            Processor(model.spec(), model.backbone.tokenizer, model.tokens),
        )

    return make


def picture(value, size=(40, 40)):
    return np.full((*size, 3), value, np.uint8)


def edit(name, sources, target, condition=None):
    """Pictures, and one drawn from one of them."""
    shown = [Media(kind="image", source=picture(value)) for value in sources]
    drawn = Output(kind="image", target=target, condition=condition)
    turns = (Turn(role="user", parts=(*shown, Text(text="do"))), Turn(role="assistant", parts=(Text(text="so"), drawn)))
    return Sample(turns=turns, id=name)


def test_behind_a_head_it_learns_the_outputs_from_the_predictions(world):
    model, recorder, processor = world({})
    report = model(processor([edit("a", [10], picture(200)), edit("b", [], picture(100))]))
    torch.testing.assert_close(recorder.condition.states, report.outputs["image"].conditions.states)
    assert recorder.condition.states.requires_grad and recorder.target.shape == (2, 3, 32, 32)
    torch.testing.assert_close(recorder.target.amax((1, 2, 3)), torch.tensor([200, 100]) / 255, rtol=0, atol=1e-3)
    assert recorder.condition.image is recorder.condition.features is recorder.condition.null is None
    assert len(set(recorder.keys)) == 2


def test_targets_of_another_size_are_read_for_the_detokenizer_itself(world):
    model, recorder, processor = world({"size": 48})
    assert model.spec().outputs["detokenizers.image"].preprocess.size == (48, 48)
    assert "detokenizers.image" not in model.spec().media
    model(processor([edit("a", [], picture(100))]))
    assert recorder.target.shape == (1, 3, 48, 48)
    torch.testing.assert_close(recorder.target, torch.full((1, 3, 48, 48), 100 / 255))
    alike, _, _ = world({"size": 32})
    assert set(alike.spec().outputs) == {"image"}


@pytest.mark.parametrize("size", [0, 48])
def test_sources_their_features_and_a_grey_picture_come_along(world, size):
    model, recorder, processor = world({"needs": ["image", "features", "null"], "size": size})
    samples = [edit("a", [10, 250], picture(1), 1), edit("b", [60], picture(2)), edit("c", [120], picture(3), 0)]
    batch = processor(samples)
    model(batch)
    condition, side = recorder.condition, size or 32
    assert condition.image.shape == (3, 3, side, side) and condition.image_mask.tolist() == [True, False, True]
    shown = condition.image[[0, 2]].mean((1, 2, 3))
    torch.testing.assert_close(shown, torch.tensor([250, 120]) / 255, rtol=0, atol=1e-3)
    features = model.encode(batch)["image"].tokens
    torch.testing.assert_close(condition.features.tokens[[0, 2]], features[[1, 3]])
    grey = model.encoders["image"](torch.zeros(1, 1, 3, 32, 32), Context()).tokens[0]
    torch.testing.assert_close(condition.null, grey)
    model(processor([edit("d", [5], picture(1))]))
    assert recorder.condition.image is None


@pytest.mark.parametrize("size", [0, 8])
def test_sources_are_encoded_and_pooled_as_the_target_is(world, size):
    needs = ["image", "encoded_image"]
    model, recorder, processor = world({"needs": needs, "size": size}, {"name": "queries", "num_queries": 4})
    model(processor([edit("a", [10, 250], picture(1), 1), edit("b", [60], picture(2))]))
    read = torch.nn.functional.interpolate(recorder.condition.image, (32, 32)).unsqueeze(1)
    mean, std = (torch.tensor(each).view(1, 1, 3, 1, 1) for each in _normalisation(model.encoders["image"]))
    wanted = pool_tokens(model.encoders["image"]((read - mean) / std, Context()), 4)
    torch.testing.assert_close(recorder.condition.encoded_image, wanted, atol=1e-5, rtol=1e-5)
    assert not recorder.condition.encoded_image.requires_grad
    model(processor([edit("c", [], picture(1))]))
    assert recorder.condition.encoded_image is None


def _normalisation(encoder):
    return encoder.preprocess.mean, encoder.preprocess.std


def test_the_grey_picture_is_pooled_as_the_target_is(world):
    head = {"name": "queries", "num_queries": 4, "pool": "1d"}
    model, recorder, processor = world({"needs": ["null"]}, head)
    model(processor([edit("a", [], picture(9))]))
    grey = model.encoders["image"](torch.zeros(1, 1, 3, 32, 32), Context())
    torch.testing.assert_close(recorder.condition.null, pool_tokens(grey, 4, "1d")[0])
    model.heads["image"].pool = "2d"
    model(processor([edit("a", [], picture(9))]))
    torch.testing.assert_close(recorder.condition.null, pool_tokens(grey, 4)[0])


def test_behind_an_encoder_it_learns_the_pictures_that_went_in(world):
    model, recorder, processor = world({"from": "encoders.image", "size": 48})
    assert "detokenizers.image" in model.spec().media and "detokenizers.image" not in model.spec().outputs
    batch = processor([edit("a", [10, 20], picture(1)), edit("b", [30], picture(1))])
    model(batch)
    torch.testing.assert_close(recorder.condition.states, model.encode(batch)["image"].tokens)
    assert recorder.target.shape == (3, 3, 48, 48)
    torch.testing.assert_close(recorder.target.mean((1, 2, 3)), torch.tensor([10, 20, 30]) / 255)


@pytest.mark.parametrize("size", [0, 48])
def test_alone_with_sources_it_learns_the_outputs_from_their_own_features(world, size):
    model, recorder, processor = world({"from": "encoders.image", "needs": ["image"], "size": size})
    batch = processor([edit("a", [10], picture(200), 0), edit("b", [30], picture(90))])
    model(batch)
    values = batch.outputs["image"].target.unsqueeze(1)
    torch.testing.assert_close(
        recorder.condition.states, model.encoders["image"](values, Context()).tokens, rtol=1e-3, atol=1e-3
    )
    assert recorder.condition.image_mask.tolist() == [True, False]
    torch.testing.assert_close(recorder.condition.image[0].mean(), torch.tensor(10 / 255), rtol=0, atol=1e-3)
    torch.testing.assert_close(recorder.target.mean((1, 2, 3)), torch.tensor([200, 90]) / 255, rtol=0, atol=1e-3)


MAPPER = {"name": "mapper", "num_queries": 3, "dim": 16, "depth": 1, "num_heads": 2, "out_dim": 6}


def test_a_head_without_a_target_encoder_brings_captions_and_pictures_by_node(world):
    head = {"name": "signal_tokens", "num_tokens": 2, "connector": MAPPER}
    model, recorder, processor = world({"needs": ["caption"], "size": 8}, head)
    assert recorder.in_dim == 6
    caption = np.arange(18, dtype=np.float32).reshape(3, 6)
    targets = {"image": caption, "detokenizers.image": picture(51)}
    model(processor([edit("a", [], targets)]))
    torch.testing.assert_close(recorder.condition.caption[0], torch.from_numpy(caption))
    torch.testing.assert_close(recorder.target, torch.full((1, 3, 8, 8), 0.2))
    model(processor([Sample(turns=edit("a", [7], None).turns[:1], id="nothing")]))
    assert recorder.condition.states.shape == (0, 3, 6) and len(recorder.target) == 0


def test_captions_alone_need_no_picture(world):
    head = {"name": "signal_tokens", "num_tokens": 2, "connector": MAPPER}
    model, recorder, processor = world({"needs": ["caption"], "reads_target": False, "size": 8}, head)
    assert set(model.spec().outputs) == {"image"}
    model(processor([edit("a", [], np.ones((3, 6), np.float32))]))
    assert len(recorder.target) == len(recorder.condition.caption) == 1


@pytest.mark.parametrize("node", [{}, {"from": "encoders.image"}, {"from": "encoders.image", "needs": ["image"]}])
def test_a_step_without_pictures_touches_it_with_zero(world, node):
    model, recorder, processor = world(node)
    report = model(processor([Sample(turns=edit("a", [], None).turns[:1], id="nothing")]))
    assert recorder.condition.states.shape == (0, 16, 32) and recorder.target.shape == (0, 3, 32, 32)
    report.total.backward()
    assert float(recorder.weight.grad.abs().sum()) == 0


@pytest.mark.parametrize(
    ("node", "head", "message"),
    [
        (
            {"num_states": 9},
            None,
            r"detokenizers.image: reads 9 states per item, and heads.image makes 16; change one",
        ),
        (
            {"num_states": 9, "from": "encoders.image"},
            None,
            r"and encoders.image makes 16",
        ),
        (
            {},
            {"name": "signal_tokens", "connector": MAPPER},
            r"detokenizers.image: learns pictures as an encoder reads them, and heads.image has no target",
        ),
    ],
)
def test_what_does_not_fit_is_a_fault_of_the_recipe(world, node, head, message):
    with pytest.raises(RecipeError, match=message):
        world(node, head)


def test_task_tokens_need_no_targets(world):
    model, recorder, processor = world({"size": 8}, {"name": "task_tokens"})
    assert set(model.spec().outputs) == {"image"} and recorder.in_dim == 32


def test_pixels_undo_the_normalisation():
    preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2))
    given = torch.rand(2, 3, 4, 5)
    mean, std = (torch.tensor(n).view(1, 3, 1, 1) for n in (preprocess.mean, preprocess.std))
    torch.testing.assert_close(pixels((given - mean) / std, preprocess), given)


def test_conditions_can_be_made_without_a_batch(world):
    model, recorder, _ = world({"needs": ["null"]})
    states, seen = torch.randn(2, 16, 32), Features(tokens=torch.randn(2, 4, 8))
    made = model.link("image").condition(states, torch.rand(2, 3, 8, 8), features=seen)
    assert made.states is states and made.image_mask is None and made.features is seen and made.null.shape == (16, 32)


def test_features_from_a_cache_bring_no_pictures_to_learn(world):
    model, _, processor = world({"from": "encoders.image"})
    batch = processor([edit("a", [10], picture(1))])
    media = replace(batch.media["image"], values=None, features=model.encode(batch)["image"])
    with pytest.raises(DataError, match="detokenizers.image learns the pictures of encoders.image"):
        model(replace(batch, media={"image": media}))
