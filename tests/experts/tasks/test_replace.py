import numpy as np

from mmunify.data.digit_world.scene import draw_scene, make_scene
from mmunify.experts.tasks._matte import cut_out
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Media, Region, TaskCall


def run(instruction, picture, region, seed=0):
    call = TaskCall(task="replace", instruction=instruction, regions=(region,))
    workspace = Workspace(media=(Media(kind="image", source=picture),), seed=seed)
    return EXPERTS.build({"name": "replace"})(call, workspace)[0]


def test_the_new_digit_has_the_old_ones_color_height_and_centre():
    rng = np.random.default_rng(6)
    for _ in range(10):
        scene = make_scene(rng, "test", 1)
        digit, picture = scene.digits[0], draw_scene(scene)
        region = Region(box=digit.norm_box(64), label=f"{digit.color} {digit.digit}")
        made = run("a 0", picture, region)
        x0, y0, x1, y1 = digit.box
        wide = Region(box=(max(x0 - 6, 0) / 64, y0 / 64, min(x1 + 6, 64) / 64, y1 / 64))
        matte = cut_out(made.data, wide)
        rows = np.flatnonzero(matte.mask(picture.shape).any(1))
        assert abs(matte.color - cut_out(picture, region).color).max() < 40
        assert rows[0] - y0 <= 1 and y1 - 1 - rows[-1] <= 1
        assert made.name == f"edited-replace-{digit.color}-{digit.digit}-by-a-0"


def test_a_named_color_wins_and_words_are_printed():
    picture = np.full((64, 64, 3), 100, np.uint8)
    picture[20:40, 20:40] = (200, 30, 30)
    region = Region(box=(0.3, 0.3, 0.65, 0.65), label="square")
    made = run("a blue star", picture, region).data.astype(int)
    blue = (made[..., 2] - made[..., 0]) > 60
    assert blue[20:42, 18:42].sum() > 10 and not blue[:15].any()
    assert not ((made[..., 0] - made[..., 2]) > 60).any()


def test_the_seed_chooses_the_handwriting():
    scene = make_scene(np.random.default_rng(0), "test", 1)
    region = Region(box=scene.digits[0].norm_box(64))
    first, again, other = (run("5", draw_scene(scene), region, seed).data for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
