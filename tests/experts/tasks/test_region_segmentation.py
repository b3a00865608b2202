import numpy as np
import pytest

from mmunify.data.digit_world.scene import digit_mask, draw_scene, make_scene
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Media, Region, TaskCall


@pytest.fixture
def expert():
    return EXPERTS.build({"name": "region_segmentation"})


def test_one_named_mask_per_region(expert):
    scene = make_scene(np.random.default_rng(1), "test", 3)
    picture = draw_scene(scene)
    regions = tuple(
        Region(box=digit.norm_box(64), label=f"{digit.color} {digit.digit}" if index else "")
        for index, digit in enumerate(scene.digits)
    )
    call = TaskCall(task="segment", instruction="all of them", regions=regions)
    masks = expert(call, Workspace(media=(Media(kind="image", source=picture),)))
    assert [mask.name for mask in masks] == ["mask-all-of-them"] + [
        f"mask-{digit.color}-{digit.digit}" for digit in scene.digits[1:]
    ]
    for index, mask in enumerate(masks):
        truth = digit_mask(scene, index)
        assert (mask.kind, mask.producer, mask.data.dtype, mask.call) == ("mask", "region_segmentation", bool, call)
        assert (mask.data & truth).sum() / (mask.data | truth).sum() > 0.85


def test_it_says_what_it_needs(expert):
    assert (expert.tasks, expert.inputs, expert.available()) == (("segment",), ("image", "regions"), None)
