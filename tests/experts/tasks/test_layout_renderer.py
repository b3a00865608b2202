import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.data.digit_world.scene import COLORS
from mmunify.errors import UserError
from mmunify.experts.tasks._matte import cut_out
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Region, TaskCall


def run(instruction, *regions, seed=0, **arguments):
    task = "layout_to_image" if regions else "generate_image"
    expert = EXPERTS.build({"name": "layout_renderer", **arguments})
    return expert(TaskCall(task=task, instruction=instruction, regions=regions), Workspace(seed=seed))[0]


def test_digits_stand_in_their_boxes_in_their_colors():
    boxes = ((1 / 64, 1 / 64, 21 / 64, 21 / 64), (43 / 64, 43 / 64, 63 / 64, 63 / 64))
    regions = [Region(box=box, label=label) for box, label in zip(boxes, ("red 7", "blue 3"), strict=True)]
    made = run("a red 7 and a blue 3", *regions)
    assert (made.kind, made.name, made.data.shape) == ("image", "generated-a-red-7-and-a-blue-3", (64, 64, 3))
    for region, color in zip(regions, ("red", "blue"), strict=True):
        matte = cut_out(made.data, region)
        assert np.abs(matte.color - COLORS[color]).max() < 30
        ys, xs = np.nonzero(matte.mask(made.data.shape))
        center = np.array([xs.min() + xs.max() + 1, ys.min() + ys.max() + 1]) / 128
        assert (
            np.abs(center - np.array([region.box[0] + region.box[2], region.box[1] + region.box[3]]) / 2).max() < 0.03
        )
        assert ys.max() - ys.min() + 1 >= 19


def test_a_prompt_alone_is_laid_out():
    made = run("a green 5 on the left and a yellow 2 on the right").data.astype(int)
    green = made[..., 1] - made[..., 0] > 60
    yellow = made[..., 0] - made[..., 2] > 100
    assert np.nonzero(green)[1].max() < 32 < np.nonzero(yellow)[1].min()


def test_other_things_are_labelled_outlines_in_a_picture_that_can_be_read():
    plain = run("a cat on a sofa").data
    assert plain.shape == (256, 256, 3)
    assert (plain[86 : 86 + 80, [88, 167]].reshape(-1, 3) == 235).all(-1).mean() > 0.9


def test_the_seed_and_the_words_decide():
    first, again, other = (run("a red 7", seed=seed).data for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert run("a red 7", size=128).data.shape == (128, 128, 3)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_no_prompt_fails(prompt):
    assert run(prompt).data.dtype == np.uint8


def test_a_size_that_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="size=4: choose a side of 8 to 4096"):
        EXPERTS.build({"name": "layout_renderer", "size": 4})
