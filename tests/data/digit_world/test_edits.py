"""Edits: pictures change where they should and nowhere else."""

import numpy as np
import pytest

from mmunify.data.digit_world import edits, handwriting
from mmunify.data.digit_world.scene import Scene, digit_mask, draw_scene, make_scene
from mmunify.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
SCENES = [make_scene(np.random.default_rng(seed), warp=seed % 2) for seed in range(40)]


def _square(scene: Scene, index: int) -> np.ndarray:
    """The square into which the digit is drawn: nothing else may change."""
    x, y, size = scene.digits[index].place
    inside = np.zeros((scene.size, scene.size), dtype=bool)
    inside[max(y, 0) : y + size, max(x, 0) : x + size] = True
    return inside


def test_removing_changes_the_digit_alone() -> None:
    for scene in SCENES:
        after = edits.remove_digit(scene, 0)
        changed = (draw_scene(scene) != draw_scene(after)).any(-1)
        assert after.digits == scene.digits[1:]
        assert changed[digit_mask(scene, 0)].mean() > 0.95
        assert not changed[~_square(scene, 0)].any()


def test_recolouring_keeps_the_shape() -> None:
    for scene in SCENES:
        after = edits.recolor_digit(scene, 0, "purple" if scene.digits[0].color != "purple" else "green")
        np.testing.assert_array_equal(digit_mask(scene, 0), digit_mask(after, 0))
        assert not (draw_scene(scene) != draw_scene(after))[~_square(scene, 0)].any()
        assert after.digits[0].box == scene.digits[0].box and after.digits[1:] == scene.digits[1:]


@pytest.mark.parametrize("split", ["train", "test"])
def test_replacing_takes_colour_place_and_handwriting(split: handwriting.Split) -> None:
    allowed = set(handwriting.load_glyphs(split).sample.tolist())
    rng = np.random.default_rng(1)
    for scene in SCENES:
        old, new = scene.digits[-1], edits.replace_digit(scene, len(scene.digits) - 1, 8, rng, split).digits[-1]
        assert (new.digit, new.color) == (8, old.color) and new.sample in allowed
        middle = [abs(new.box[a] + new.box[a + 2] - old.box[a] - old.box[a + 2]) / 2 for a in (0, 1)]
        assert max(middle) <= 1.5
        assert min(new.box) >= 0 and max(new.box) <= scene.size
        for other in scene.digits[:-1]:
            a, b = new.box, other.box
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_global_edits() -> None:
    edited = {name: edits.edit_picture(PICTURE, name).astype(int) for name in edits.GLOBAL_EDITS}
    before = PICTURE.astype(int)
    np.testing.assert_array_equal(edited["invert the colors"] + before, 255)
    np.testing.assert_array_equal(edited["flip it"], before[:, ::-1])
    np.testing.assert_allclose(edited["make it brighter"], np.minimum(before * 1.4, 255), atol=0.51)
    np.testing.assert_allclose(edited["make it darker"], before * 0.6, atol=0.51)
    grey = before[..., 0] * 0.299 + before[..., 1] * 0.587 + before[..., 2] * 0.114
    np.testing.assert_allclose(edited["make it grayscale"], np.stack([grey] * 3, -1), atol=0.51)


def test_global_edits_return_new_bytes() -> None:
    for name in edits.GLOBAL_EDITS:
        edited = edits.edit_picture(PICTURE, name)
        assert edited.dtype == np.uint8 and edited.shape == PICTURE.shape and not np.shares_memory(edited, PICTURE)


def test_an_unknown_edit_is_refused() -> None:
    with pytest.raises(DataError, match=r"no global edit 'blur it': expected one of \['flip it'"):
        edits.edit_picture(PICTURE, "blur it")
