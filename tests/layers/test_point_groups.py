import torch

from mmunify.layers.point_groups import PointGroups, spread


def test_farthest_points_on_a_line():
    places = torch.zeros(1, 5, 3)
    places[0, :, 0] = torch.tensor([0.0, 1.0, 10.0, 4.0, 6.0])
    assert spread(places, 4).tolist() == [[0, 2, 3, 4]]


def test_clouds_are_independent_and_order_of_neighbours_does_not_matter():
    torch.manual_seed(0)
    groups = PointGroups(16, num_groups=4, group_size=8)
    clouds = torch.randn(2, 32, 6)
    tokens = groups(clouds)
    assert tokens.shape == (2, 4, 16)
    torch.testing.assert_close(groups(clouds[1:]), tokens[1:])
    shuffled = torch.cat([clouds[:, :1], clouds[:, 1:][:, torch.randperm(31)]], dim=1)  # the first point is the seed
    torch.testing.assert_close(groups(shuffled), tokens)


def test_a_shifted_cloud_changes_by_its_places_alone():
    torch.manual_seed(0)
    groups = PointGroups(16, num_groups=4, group_size=8).double()
    cloud, shift = torch.randn(1, 32, 6, dtype=torch.float64), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    moved = torch.cat([cloud[..., :3] + shift, cloud[..., 3:]], dim=-1)
    wanted = groups(cloud) + shift @ groups.places.weight.T
    torch.testing.assert_close(groups(moved), wanted)
