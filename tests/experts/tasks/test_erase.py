import numpy as np
import pytest

from mmunify.data.digit_world.edits import remove_digit
from mmunify.data.digit_world.scene import draw_scene, make_scene
from mmunify.errors import UserError
from mmunify.experts.tasks._erase import erase
from mmunify.experts.tasks._matte import cut_out
from mmunify.types import Region


def psnr(first, second):
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


def test_an_erased_digit_leaves_its_background():
    rng, scores, worst = np.random.default_rng(3), [], []
    for _ in range(25):
        scene = make_scene(rng, "test", 3)
        picture, truth = draw_scene(scene), draw_scene(remove_digit(scene, 0))
        matte = cut_out(picture, Region(box=scene.digits[0].norm_box(64)))
        made = erase(picture, matte, seed=0)
        scores.append(psnr(made, truth))
        worst.append(psnr(picture, truth))
        outside = np.ones(picture.shape[:2], bool)
        outside[matte.window] = False
        assert (made[outside] == picture[outside]).all()
    assert np.mean(scores) > 32 and np.mean(scores) > np.mean(worst) + 12


def test_a_gradient_goes_on_through_the_hole():
    picture = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None] * 3 + 20, 40, axis=0).repeat(3, axis=2)
    truth = picture.copy()
    picture[15:25, 20:40] = (250, 10, 10)
    made = erase(picture, cut_out(picture, Region(box=(0.3, 0.3, 0.7, 0.7))), seed=0)
    assert np.abs(made.astype(int) - truth).max() <= 6


def test_large_holes_are_filled_at_a_smaller_scale():
    picture = np.full((700, 900, 3), 120, np.uint8)
    picture[100:600, 200:700] = (10, 10, 200)
    made = erase(picture, cut_out(picture, Region(box=(0.2, 0.1, 0.8, 0.9))), seed=0)
    assert np.abs(made.astype(int) - 120).max() <= 3


def test_the_seed_draws_the_grain():
    scene = make_scene(np.random.default_rng(0), "test", 1)
    picture = draw_scene(scene)
    matte = cut_out(picture, Region(box=scene.digits[0].norm_box(64)))
    first, again, other = (erase(picture, matte, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_region_that_covers_everything_is_refused():
    picture = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(UserError, match="covers the whole picture"):
        erase(picture, cut_out(picture, Region(box=(0.0, 0.0, 1.0, 1.0))), seed=0)
