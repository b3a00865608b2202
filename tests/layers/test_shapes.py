"""Shapes of whole tensors."""

import torch

from mmunify.layers.shapes import shape_of


def test_what_zero_3_has_taken_apart_keeps_its_shape():
    tensor = torch.nn.Parameter(torch.zeros(3, 2))
    assert shape_of(tensor) == (3, 2)
    tensor.ds_shape, tensor.data = tensor.shape, torch.empty(0)
    assert shape_of(tensor) == (3, 2) and not tensor.numel()
