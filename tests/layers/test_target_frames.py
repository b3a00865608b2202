import pytest
import torch

from mmunify.layers.target_frames import frame_box, frame_mask, restore_box, restore_mask
from mmunify.types import Preprocess

EXTENTS = [(24, 16), (16, 24), (20, 20), (31, 18)]
FITS = ["pad", "stretch", "crop"]


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("fit", FITS)
def test_boxes_there_and_back(extent, fit):
    frame = Preprocess(size=(32, 32), fit=fit)
    box = (0.4, 0.4, 0.6, 0.55)  # inside of every crop
    assert restore_box(frame_box(box, extent, frame), extent, frame) == pytest.approx(box)


def test_padding_is_centred_and_clips():
    frame = Preprocess(size=(32, 32), fit="pad")
    assert frame_box((0.0, 0.0, 1.0, 1.0), (24, 16), frame) == pytest.approx((0, 4 / 24, 1, 20 / 24))
    assert restore_box((0.0, 0.0, 1.0, 0.5), (24, 16), frame) == pytest.approx((0, 0, 1, 0.5))
    crop = Preprocess(size=(32, 32), fit="crop")
    assert frame_box((0.0, 0.0, 1.0, 1.0), (24, 16), crop) == (0, 0, 1, 1)
    assert restore_box((0.0, 0.0, 1.0, 1.0), (24, 16), crop) == pytest.approx((4 / 24, 0, 20 / 24, 1))


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("fit", FITS)
def test_masks_there_and_back(extent, fit):
    width, height = extent
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
    frame = Preprocess(size=(96, 96), fit=fit)
    framed = frame_mask(mask, frame, (96, 96))
    assert 0 <= float(framed.min()) <= float(framed.max()) <= 1
    back = restore_mask(framed[0] - 0.5, extent, frame)
    union, overlap = (back | mask[0]).sum(), (back & mask[0]).sum()
    assert back.shape == (height, width) and float(overlap / union) > 0.8


def test_cells_hold_the_share_that_is_covered():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, 0, :3] = True
    assert frame_mask(mask, Preprocess(fit="stretch"), (2, 2))[0].tolist() == [[0.5, 0.25], [0.0, 0.0]]
