import numpy as np
import pytest
from skimage import data

from mmunify.data.digit_world.scene import digit_mask, draw_scene, make_scene
from mmunify.errors import UserError
from mmunify.experts.tasks._matte import cut_out
from mmunify.types import Region


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_digits_of_unseen_handwriting_are_cut_out_of_their_boxes():
    rng, scores = np.random.default_rng(7), []
    for _ in range(60):
        scene = make_scene(rng, "test")
        picture = draw_scene(scene)
        for index, digit in enumerate(scene.digits):
            box = tuple(round(edge, 3) for edge in digit.norm_box(scene.size))
            scores.append(iou(cut_out(picture, Region(box=box)).mask(picture.shape), digit_mask(scene, index)))
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.85


def test_a_flat_shape_is_cut_out_exactly():
    picture = np.full((40, 60, 3), 100, np.uint8)
    picture[10:20, 15:45] = (200, 30, 30)
    matte = cut_out(picture, Region(box=(0.2, 0.2, 0.8, 0.6)))
    assert (matte.mask(picture.shape) == (picture[..., 0] == 200)).all()
    assert tuple(matte.color) == (200, 30, 30)


def test_a_person_in_a_photo_is_told_from_the_wall():
    picture = data.astronaut()
    mask = cut_out(picture, Region(box=(0.25, 0.0, 0.6, 0.55))).mask(picture.shape)
    assert mask[40:180, 190:260].mean() > 0.95  # hair and face
    assert mask[:60, 130:155].mean() < 0.05  # the wall beside them, inside the box
    assert not mask[:, 320:].any()  # outside the box


def test_large_pictures_are_worked_on_in_a_small_crop():
    picture = np.zeros((3000, 4000, 3), np.uint8)
    picture[1000:1400, 1500:2500] = (0, 200, 0)
    mask = cut_out(picture, Region(box=(0.3, 0.25, 0.7, 0.55))).mask(picture.shape)
    assert iou(mask, picture[..., 1] > 0) > 0.98


def test_a_region_with_a_mask_is_taken_at_its_word():
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    wanted = np.zeros((20, 30), bool)
    wanted[5:9, 10:20] = True
    assert (cut_out(picture, Region(mask=wanted)).mask(picture.shape) == wanted).all()


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.501, 0.501), (0.9, 0.9, 1.0, 1.0)])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (64, 64, 3)])
def test_boxes_and_pictures_of_any_size_give_a_mask_inside_the_box(box, shape):
    for picture in (np.zeros(shape, np.uint8), np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)):
        matte = cut_out(picture, Region(box=box))
        mask = matte.mask(shape)
        assert mask.any() and np.isfinite(matte.color).all()
        assert ((matte.alpha >= 0) & (matte.alpha <= 1)).all()


def test_two_clicks_have_no_area():
    with pytest.raises(UserError, match="region 'it' has 2 points; give a box, a mask or an outline"):
        cut_out(np.zeros((9, 9, 3), np.uint8), Region(points=((0.1, 0.1), (0.2, 0.2)), label="it"))
