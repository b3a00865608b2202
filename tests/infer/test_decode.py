import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.infer.decode import DetokenizerAnswer, decode_predictions, detokenizer_answers, slot_task
from mmunify.model import Wiring
from mmunify.parts import Detokenizer, Workspace
from mmunify.types import TaskCall


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
    assert detokenizer_answers(painting)["generate_image"].name == "detokenizers.painter"
    made = decode_predictions(
        painting, {"image": torch.tensor([0.0, 0.5, 2.0]).view(3, 1, 1).expand(3, 16, 32)}, seed=9
    )
    assert [artifact.data[0, 0].tolist() for artifact in made] == [[0] * 3, [128] * 3, [255] * 3]
    assert {(a.kind, a.producer, a.seed, a.data.shape, a.data.dtype) for a in made} == {
        ("image", "detokenizers.painter", 9, (4, 5, 3), np.dtype(np.uint8))
    }


def test_a_detokenizer_of_the_heads_target_features_is_taken_too(painting):
    painting.wiring["detokenizers.painter"] = Wiring(kind="image", source="encoders.image")
    assert "generate_image" in detokenizer_answers(painting)
    painting.wiring["detokenizers.painter"] = Wiring(kind="image", source="encoders.other")
    assert detokenizer_answers(painting) == {}


def test_predictions_without_a_detokenizer_are_skipped(model):
    assert decode_predictions(model, {"image": torch.zeros(1, 16, 32)}) == []


def test_the_picture_is_named_after_the_words_and_needs_features():
    answer = DetokenizerAnswer("detokenizers.image", Painter())
    call = TaskCall(task="generate_image", instruction="a red 7", condition=torch.ones(2, 3))
    assert answer(call, Workspace())[0].name == "generated-a-red-7"
    with pytest.raises(
        UserError, match="detokenizers.image draws predicted features, and the generate_image call carries"
    ):
        answer(TaskCall(task="generate_image"), Workspace())
