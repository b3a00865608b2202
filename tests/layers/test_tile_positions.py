import torch

from mmunify.layers.tile_positions import TilePositions


def test_the_whole_picture_gets_the_mean_of_the_four():
    positions = TilePositions(6)
    whole = positions(torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(whole[0], positions.edges.mean(dim=0))


def test_formula_at_any_centre():
    positions = TilePositions(6).double()
    left, right, top, bottom = positions.edges
    x, y = 0.125, 0.9
    wanted = (x * left + y * right + (1 - x) * top + (1 - y) * bottom) / 2
    torch.testing.assert_close(positions(torch.tensor([[x, y]], dtype=torch.float64))[0], wanted)


def test_scale_of_fresh_vectors():
    torch.manual_seed(0)
    assert abs(TilePositions(4096).edges.std() * 64 - 1) < 0.05
