"""Structures move like tensors, and are frozen."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from mmunify.types import Condition, Features


def features():
    return Features(tokens=torch.zeros(1, 2, 3), layers={4: torch.zeros(1, 2, 3)})


def test_to_reaches_every_tensor_inside():
    nested = Condition(states=torch.zeros(1, 2, 3), features=features()).to(torch.float64)
    assert nested.states.dtype == nested.features.tokens.dtype == nested.features.layers[4].dtype == torch.float64
    assert nested.pooled is None


def test_structures_are_frozen_slotted_and_by_keyword():
    made = features()
    with pytest.raises(FrozenInstanceError):
        made.tokens = torch.zeros(1, 1, 1)
    assert not hasattr(made, "__dict__")
    with pytest.raises(TypeError):
        Features(torch.zeros(1, 2, 3))
