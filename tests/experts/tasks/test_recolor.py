import numpy as np
import pytest

from mmunify.data.digit_world.edits import recolor_digit
from mmunify.data.digit_world.scene import COLORS, draw_scene, make_scene
from mmunify.errors import UserError
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Media, Region, TaskCall


def run(instruction, picture, region):
    call = TaskCall(task="recolor", instruction=instruction, regions=(region,))
    workspace = Workspace(media=(Media(kind="image", source=picture),))
    return EXPERTS.build({"name": "recolor"})(call, workspace)[0]


def test_a_recolored_digit_is_the_digit_drawn_in_the_new_color():
    rng = np.random.default_rng(2)
    for _ in range(20):
        scene = make_scene(rng, "test", 2)
        digit = scene.digits[0]
        color = list(COLORS)[rng.integers(len(COLORS))]
        made = run(color, draw_scene(scene), Region(box=digit.norm_box(64), label="it"))
        error = np.abs(made.data.astype(int) - draw_scene(recolor_digit(scene, 0, color)))
        x0, y0, x1, y1 = digit.box
        assert error[y0:y1, x0:x1].mean() < 13, (digit.color, color)
        assert error.mean() < 2
        assert made.name == f"edited-recolor-it-{color}"


def test_the_last_color_is_the_new_one_and_shading_stays():
    picture = np.full((30, 30, 3), 90, np.uint8)
    picture[10:20, 10:20] = (200, 40, 40)
    picture[10:20, 10:15] = (180, 20, 20)
    made = run("from red to #00ff00", picture, Region(box=(0.3, 0.3, 0.7, 0.7))).data
    assert (made[:9] == 90).all()
    assert made[15, 17, 1] == 255 and made[15, 11, 0] <= 5
    assert made[15, 11, 2] < 5 and made[15, 11, 1] > 200


def test_an_instruction_without_a_color_is_refused():
    with pytest.raises(UserError, match="'nicer' names no colour; name one of red, green"):
        run("nicer", np.zeros((9, 9, 3), np.uint8), Region(box=(0.1, 0.1, 0.9, 0.9)))
