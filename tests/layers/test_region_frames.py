import torch

from mmunify.layers.region_frames import RegionPreprocess, split_rows


def test_rows_come_apart():
    rows = torch.tensor([[3.0, 0.1, 0.2, 0.3, 0.4, *range(6)]])
    items, boxes, masks = split_rows(rows, (2, 3))
    assert items.tolist() == [3]
    assert boxes.tolist() == torch.tensor([[0.1, 0.2, 0.3, 0.4]]).tolist()
    assert masks.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_what_the_data_side_is_told():
    told = RegionPreprocess(size=(8, 8), medium="video")
    assert (told.kind, told.medium, told.size) == ("region", "video", (8, 8))
