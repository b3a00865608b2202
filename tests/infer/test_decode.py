import numpy as np
import pytest
import torch

from mmunify.errors import UserError
from mmunify.infer.decode import DetokenizerAnswer, detokenizer_answers, slot_task
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
    answer = DetokenizerAnswer("detokenizers.image", Painter())
    with pytest.raises(
        UserError, match="detokenizers.image draws predicted features, and the generate_image call carries"
    ):
        answer(TaskCall(task="generate_image"), Workspace())
