import pytest
import torch
from torch import nn

from mmunify.errors import RecipeError
from mmunify.train.handover import hand_over
from tests.train.worlds import ToyModel


def other() -> ToyModel:
    model = ToyModel()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    return model


def test_everything_is_handed_over_by_name():
    old, new = ToyModel(), hand_over(ToyModel(), other())
    for (name, before), after in zip(old.state_dict().items(), new.state_dict().values(), strict=True):
        assert torch.equal(before, after), name


def test_new_missing_and_reshaped_tensors_are_named_together():
    new = other()
    new.adapters["sound"] = nn.Linear(2, 2, bias=False)
    new.adapters["image"] = nn.Linear(4, 3)
    del new.backbone[2]
    with pytest.raises(RecipeError) as caught:
        hand_over(ToyModel(), new, path="stages.mix.fresh")
    text = str(caught.value)
    assert len(caught.value.faults) == 5 and text.count("stages.mix.fresh") == 5
    assert "adapters.sound.weight is not in the model of the stage before" in text
    assert "backbone.2.bias of the stage before has no place" in text
    assert "adapters.image.weight was (4, 4) in the stage before and is (3, 4) now" in text


def test_fresh_tensors_keep_their_new_values():
    new = other()
    new.adapters["image"] = nn.Linear(4, 3)
    weight = new.adapters["image"].weight.clone()
    handed = hand_over(ToyModel(), new, fresh=["adapters.image.*", "backbone.2.weight"])
    assert torch.equal(handed.adapters["image"].weight, weight)
    assert torch.equal(handed.backbone[0].weight, ToyModel().backbone[0].weight)
    assert torch.equal(handed.backbone[2].weight, other().backbone[2].weight)
