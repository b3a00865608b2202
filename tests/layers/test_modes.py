"""Modes follow what learns."""

import torch
from torch import nn

from mmunify.layers.modes import set_modes


def test_frozen_towers_keep_still_and_their_experts_are_active():
    tower = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    tower.requires_grad_(False)
    tower[0].low_rank = nn.Sequential(nn.Linear(8, 1), nn.Dropout(0.1))
    model = nn.ModuleDict({"tower": tower, "adapter": nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))})
    set_modes(model)
    assert not tower.training and not tower[1].training
    assert tower[0].low_rank.training and tower[0].low_rank[1].training
    assert model["adapter"].training and model["adapter"][1].training


def test_eval_mode_of_everything_without_parameters():
    model = nn.Sequential(nn.Dropout(0.5))
    set_modes(model, mode=False)
    assert not model[0].training


def test_parameters_that_are_elsewhere_count_as_they_were():
    """ZeRO-3 leaves empty ones behind, which know their shape."""
    model = nn.ModuleDict({"tower": nn.Linear(8, 8), "adapter": nn.Linear(8, 8)})
    model["tower"].requires_grad_(False)
    for parameter in model.parameters():
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)
    set_modes(model)
    assert model["adapter"].training and not model["tower"].training
