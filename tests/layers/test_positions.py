import math

import pytest
import torch

from mmunify.errors import DataError, UserError
from mmunify.layers.positions import sincos_1d, sincos_2d, with_positions
from mmunify.types import Features


def test_sincos_1d_by_hand():
    table = sincos_1d(torch.tensor([0.0, 3.0]), 4, temperature=100.0)
    assert table[0].tolist() == [0, 0, 1, 1]
    wanted = [math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)]
    torch.testing.assert_close(table[1], torch.tensor(wanted))


def test_raster_order_is_rows_first():
    table = sincos_2d((2, 3), 8)
    assert table.shape == (6, 8)
    rows, columns = table[:, :4].unflatten(0, (2, 3)), table[:, 4:].unflatten(0, (2, 3))
    assert torch.equal(rows[:, 0], rows[:, 2])
    assert torch.equal(columns[0], columns[1])
    torch.testing.assert_close(rows[:, 0], sincos_1d(torch.arange(2.0), 4))
    torch.testing.assert_close(columns[0], sincos_1d(torch.arange(3.0), 4))


def test_every_place_is_different():
    table = sincos_2d((8, 8), 16)
    distances = torch.cdist(table, table) + 10 * torch.eye(64)
    assert distances.min() > 0.1


@pytest.mark.parametrize("dim", [6, 9])
def test_widths_that_do_not_fit(dim):
    with pytest.raises(UserError, match=f"multiple of 4, got {dim}"):
        sincos_2d((2, 2), dim)


def test_odd_width():
    with pytest.raises(UserError, match="even width, got 3"):
        sincos_1d(torch.zeros(1), 3)


def test_with_positions_adds_to_every_item():
    features = Features(tokens=torch.zeros(2, 6, 8), grid=(2, 3))
    torch.testing.assert_close(with_positions(features)[1], sincos_2d((2, 3), 8))


def test_every_frame_gets_the_positions_of_its_raster():
    features = Features(tokens=torch.zeros(1, 18, 8), grid=(2, 3))
    torch.testing.assert_close(with_positions(features)[0], sincos_2d((2, 3), 8).repeat(3, 1))


def test_with_positions_needs_a_raster():
    with pytest.raises(DataError, match="5 tokens came without one"):
        with_positions(Features(tokens=torch.zeros(1, 5, 8)))
