from dataclasses import replace

import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.infer.decode import (
    DetokenizerAnswer,
    detokenizer_answers,
    made_by,
    mask_answers,
    region_frame,
    slot_task,
)
from mmunify.links import Link
from mmunify.model import Wiring
from mmunify.parts import Detokenizer, Workspace
from mmunify.types import Media, Output, Preprocess, Sample, TaskCall
from tests.heads.worlds import make_model


class Painter(Detokenizer):
    """Fills a picture with the mean of the features."""

    def loss(self, target, condition, draw):
        raise NotImplementedError

    def generate(self, condition, guidance={}, seed=0):
        return condition.states.mean((1, 2)).view(-1, 1, 1, 1).expand(-1, 3, 4, 5)


@pytest.fixture
def painting(model):
    model.detokenizers["painter"] = Painter()
    model.wiring["detokenizers.painter"] = Wiring(kind="image", source="heads.image")
    return model


def test_a_slot_is_drawn_by_the_detokenizer_linked_to_its_head(painting):
    assert slot_task(painting, "image") == "generate_image"
    answer = detokenizer_answers(painting)["generate_image"]
    for value, shown in ((0.0, 0), (0.5, 128), (2.0, 255)):
        call = TaskCall(task="generate_image", instruction="a red 7", condition=torch.full((16, 32), value))
        (made,) = answer(call, Workspace(seed=9))
        assert (made.data == shown).all() and made.data.shape == (4, 5, 3) and made.data.dtype == np.uint8
        assert (made.kind, made.producer, made.seed) == ("image", "detokenizers.painter", 9)
        assert made.name == "generated-a-red-7" and made.call is call


def test_a_detokenizer_of_the_heads_target_features_is_taken_too(painting):
    painting.wiring["detokenizers.painter"] = Wiring(kind="image", source="encoders.image")
    assert "generate_image" in detokenizer_answers(painting)
    painting.wiring["detokenizers.painter"] = Wiring(kind="image", source="encoders.other")
    assert detokenizer_answers(painting) == {}


def test_a_head_without_a_detokenizer_has_no_answer(model):
    assert detokenizer_answers(model) == {}


def test_features_are_needed():
    answer = DetokenizerAnswer(Link(name="detokenizers.image", source="image", kind="image", detokenizer=Painter()))
    with pytest.raises(
        UserError, match="detokenizers.image draws predicted features, and the generate_image call carries"
    ):
        answer(TaskCall(task="generate_image"), Workspace())


class Editor(Painter):
    """Answers with its source picture, made darker by half."""

    needs = frozenset({"image", "features"})
    preprocess = Preprocess(size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)

    def generate(self, condition, guidance={}, seed=0):  # noqa: B006
        self.condition = condition
        nothing = torch.ones(len(condition.states), 3, 16, 16)
        return nothing if condition.image is None else condition.image / 2


def test_an_edit_starts_from_the_latest_picture_and_keeps_its_form(painting):
    editor = painting.detokenizers["painter"] = Editor()
    answer = detokenizer_answers(painting)["generate_image"]
    first, wide = np.full((16, 16, 3), 40, np.uint8), np.full((8, 16, 3), 200, np.uint8)
    media = (Media(kind="image", source=first), Media(kind="image", source=wide), Media(kind="audio", source="x.wav"))
    call = TaskCall(task="generate_image", instruction="darker", condition=torch.zeros(16, 32))
    (made,) = answer(call, Workspace(media=media))
    assert made.data.shape == (8, 16, 3) and (made.data == 100).all() and made.name == "edited-darker"
    assert editor.condition.image.shape == (1, 3, 16, 16)  # padded to a square, without padding in the answer
    assert editor.condition.features.tokens.shape == (1, 16, 32)
    (older,) = answer(replace(call, media=0), Workspace(media=media))
    assert older.data.shape == (16, 16, 3) and (older.data == 20).all()
    (new,) = answer(call, Workspace())
    assert (new.data == 255).all() and new.data.shape == (16, 16, 3) and editor.condition.features is None


TINY_DECODER = {"name": "two_way", "dim": 16, "depth": 1, "num_heads": 2, "steps": 1}


@pytest.fixture
def grounded(llama_folder):
    """A model that answers with masks and boxes."""
    heads = {"mask": {"name": "masks", "decoder": TINY_DECODER, "phrases": True}, "box": {"name": "boxes"}}
    return make_model(llama_folder, heads)


def test_a_mask_has_the_size_of_the_latest_picture(grounded):
    model, _ = grounded
    answers = mask_answers(model)
    assert list(answers) == ["segment"]
    logits = torch.full((1, 8, 8), -5.0)
    logits[:, :, :4] = 5.0  # the left half of the padded square
    workspace = Workspace(media=(Media(kind="image", source=np.zeros((20, 30, 3), np.uint8)),))
    call = TaskCall(task="segment", instruction="left", condition=logits)
    (made,) = answers["segment"](call, workspace)
    assert (
        made.kind == "mask" and made.data.shape == (20, 30) and made.data[:, :14].all() and not made.data[:, 16:].any()
    )
    with pytest.raises(UserError, match="heads.mask needs one predicted mask and a picture; 0 pictures are there"):
        answers["segment"](call, Workspace())


def test_the_assistant_answers_with_masks_and_boxes(grounded, monkeypatch):
    from mmunify.experts.router import TaskRouter
    from mmunify.infer import assistant as module
    from mmunify.infer.generate import Generated

    model, processor = grounded
    predictions = {"mask": torch.full((2, 1, 8, 8), 5.0), "box": torch.tensor([[0.25, 0.25, 0.5, 0.75]])}
    text = "It is <p>the cat</p>[SEG] and [SEG] here <at>."
    monkeypatch.setattr(module, "generate", lambda *a, **k: [Generated(text=text, ids=[], predictions=predictions)])
    assistant = module.Assistant(model, processor, TaskRouter({}))
    reply = assistant.reply("Where is it?", image=np.zeros((24, 24, 3), np.uint8))
    assert reply.text == "It is the cat and here." and reply.problems == ()
    assert [(call.task, call.instruction) for call in reply.calls] == [
        ("segment", "the cat"),
        ("segment", "Where is it?"),
    ]
    assert [made.data.all() and made.data.shape == (24, 24) for made in reply.artifacts] == [True, True]
    assert [region.box for region in reply.regions] == [(0.25, 0.25, 0.5, 0.75)]
    kinds = [part.kind for part in assistant.memory.turns[1].parts if isinstance(part, Output)]
    assert kinds == ["mask", "mask", "box"]
    assistant.reply("And now?")
    processor(  # what was said can be encoded again
        [Sample(turns=assistant.memory.turns[:3])], prompt=True
    )


def test_other_heads_have_no_frame(model):
    assert made_by(model, "image") == "features" and mask_answers(model) == {}
    with pytest.raises(UserError, match="head 'image' makes neither masks nor boxes"):
        region_frame(model, "image")
