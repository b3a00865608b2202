import numpy as np

from mmunify.data.digit_world.edits import remove_digit
from mmunify.data.digit_world.scene import draw_scene, make_scene
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Media, Region, TaskCall


def test_all_regions_are_removed_and_nothing_else():
    scene = make_scene(np.random.default_rng(5), "test", 3)
    picture, truth = draw_scene(scene), draw_scene(remove_digit(remove_digit(scene, 1), 0))
    regions = tuple(Region(box=d.norm_box(64), label=f"{d.color} {d.digit}") for d in scene.digits[:2])
    call = TaskCall(task="remove", instruction="these two", regions=regions)
    (made,) = EXPERTS.build({"name": "inpaint_removal"})(
        call, Workspace(media=(Media(kind="image", source=picture),), seed=4)
    )
    labels = "-".join(f"{d.color}-{d.digit}" for d in scene.digits[:2])
    assert (made.kind, made.name, made.seed) == ("image", f"edited-remove-{labels}", 4)
    error = np.abs(made.data.astype(int) - truth)
    assert error.mean() < 2 and error.max() < 60
    x0, y0, x1, y1 = scene.digits[2].box
    kept = (slice(y0 + 3, y1 - 3), slice(x0 + 3, x1 - 3))
    assert (made.data[kept] == picture[kept]).all()
    assert (picture == draw_scene(scene)).all()  # the input is left as it was
