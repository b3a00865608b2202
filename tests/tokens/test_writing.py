import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.errors import TokenError
from mmunify.tokens import DIGIT_TASKS, TokenRegistry, format_call, format_region, parse_reply
from mmunify.types import Region, TaskCall


def region(*box, label="red 7"):
    return Region(box=tuple(map(float, box)), label=label)


THOUSANDTHS = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)


@st.composite
def regions(draw):
    (x0, x1), (y0, y1) = draw(THOUSANDTHS), draw(THOUSANDTHS)
    return Region(
        box=(x0 / 1000, y0 / 1000, x1 / 1000, y1 / 1000),
        label=draw(st.sampled_from(["red 7", "", "a[<b>"]) | st.text()),
    )


@st.composite
def calls(draw):
    grounding = draw(st.lists(regions(), min_size=1, max_size=5))
    instruction = draw(st.text(min_size=1).filter(str.strip))
    return TaskCall(task=draw(st.sampled_from(DIGIT_TASKS)), instruction=instruction, regions=tuple(grounding))


@settings(deadline=None)
@given(st.lists(calls(), max_size=3), st.sampled_from(["strict", "repair"]))
def test_parsing_inverts_writing(written, policy):
    reply = parse_reply("Sure. ".join(["", *map(format_call, written)]), policy)
    assert [(c.task, c.instruction, c.regions) for c in reply.calls] == [
        (c.task, c.instruction, c.regions) for c in written
    ]
    assert reply.problems == () and reply.regions == ()


@settings(deadline=None)
@given(regions(), st.integers(1, 4000), st.integers(1, 4000))
def test_boxes_survive_padding_within_half_a_thousandth_of_the_square(original, width, height):
    (back,) = parse_reply(format_region(original, (width, height)), "strict", extent=(width, height)).regions
    side = max(width, height)
    thin = any(
        high - low < 1.001e-3 * side / full
        for low, high, full in zip(original.box[:2], original.box[2:], (width, height), strict=True)
    )
    for before, after, full in zip(original.box, back.box, (width, height) * 2, strict=True):
        assert abs(before - after) <= (1.001e-3 if thin else 0.5001e-3) * side / full


@pytest.mark.parametrize("extent", [(1, 2000), (2000, 1), (3, 2000)])
@pytest.mark.parametrize("box", [(0, 0, 1e-6, 1e-6), (1 - 1e-6, 1 - 1e-6, 1, 1), (0.5, 0.5, 0.5 + 1e-9, 0.6)])
def test_a_box_thinner_than_the_third_decimal_is_not_lost(box, extent):
    reply = parse_reply(format_region(region(*box), extent), "strict", extent=extent)
    assert len(reply.regions) == 1 and reply.problems == ()


def test_calls_read_as_documented():
    two = (region(0.125, 0.25, 0.375, 0.5), region(0.5, 0.25, 0.75, 0.5))
    assert format_call(TaskCall(task="recolor", instruction="blue", regions=two)) == (
        "<recolor>blue</recolor><box>red 7[0.125,0.250,0.375,0.500][0.500,0.250,0.750,0.500]</box>"
    )
    layout = (two[0], region(0, 0, 1, 1, label="blue 3"))
    assert format_call(TaskCall(task="layout_to_image", instruction="both", regions=layout)) == (
        "<layout_to_image>both</layout_to_image>"
        "<box>red 7[0.125,0.250,0.375,0.500]</box><box>blue 3[0.000,0.000,1.000,1.000]</box>"
    )
    assert format_call(TaskCall(task="edit", instruction="invert the colors")) == "<edit>invert the colors</edit>"
    assert format_region(two[0], extent=(64, 32)) == "<box>red 7[0.125,0.375,0.375,0.500]</box>"


def test_regions_of_a_new_picture_are_not_padded_like_the_input():
    call = TaskCall(task="layout_to_image", instruction="it", regions=(region(0, 0, 1, 0.25),))
    text = format_call(call, extent=(64, 32))
    assert text.endswith("[0.000,0.000,1.000,0.250]</box>")
    assert parse_reply(text, extent=(64, 32)).calls[0].regions == call.regions


def test_a_registry_brings_its_own_words():
    tokens = TokenRegistry(tasks=("paint",), grounding="region")
    call = TaskCall(task="paint", instruction="the sky", regions=(region(0, 0, 1, 0.5, label=""),))
    text = format_call(call, registry=tokens)
    assert text == "<paint>the sky</paint><region>[0.000,0.000,1.000,0.500]</region>"
    assert parse_reply(text, registry=tokens).calls[0].regions == call.regions


BOX = region(0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (TaskCall(task="segmnt", instruction="x", regions=(BOX,)), "'segmnt'; did you mean 'segment'"),
        (TaskCall(task="edit", instruction=" \n"), "instruction of a edit call is"),
        (TaskCall(task="remove", instruction="it"), "remove call needs at least one region; 'it' has none"),
        (TaskCall(task="segment", instruction="all", regions=(BOX,) * 31), "at most 30 boxes; 'all' has 31"),
        (
            TaskCall(task="segment", instruction="x", regions=(region(0.3, 0.2, 0.1, 0.4),)),
            r"box \(0.3, 0.2, 0.1, 0.4\)",
        ),
        (TaskCall(task="segment", instruction="x", regions=(region(0.0, 0.2, 1.5, 0.4),)), "0 <= x0 < x1 <= 1"),
        (TaskCall(task="segment", instruction="x", regions=(region(0.0, math.nan, 1.0, 0.4),)), "0 <= y0 < y1 <= 1"),
        (TaskCall(task="segment", instruction="x", regions=(Region(mask=np.ones((2, 2), bool)),)), "no text form"),
        (TaskCall(task="segment", instruction="x", regions=(Region(box=BOX.box, track=1),)), "no text form"),
    ],
)
def test_what_would_not_come_back_is_refused(call, message):
    with pytest.raises(TokenError, match=message):
        format_call(call)
