"""SEED-X's box tokens as the coordinates of the same grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmunify.errors import TokenError
from mmunify.tokens import TokenRegistry, format_call, format_region, parse_reply
from mmunify.tokens.locations import corners, location_strings, write_box
from mmunify.types import Region, TaskCall

SEEDX = TokenRegistry(tasks=["segment", "edit"], bins=224)


def test_golden_values_of_centre_and_size():
    assert write_box((0.25, 0.5, 0.75, 1.0), 224) == "<box_start><loc-112><loc-168><loc-112><loc-112><box_end>"
    assert corners([112, 168, 112, 112], 224) == (0.25, 0.5, 0.75, 1.0)


def test_there_is_no_last_bin_for_one_and_nothing_is_narrower_than_a_bin():
    assert write_box((0.0, 0.0, 1.0, 1.0), 224) == "<box_start><loc-112><loc-112><loc-223><loc-223><box_end>"
    assert write_box((0.5, 0.5, 0.5001, 0.5001), 224).count("<loc-1>") == 2


def test_the_vocabulary_has_226_more_strings():
    strings = SEEDX.groups()["grounding"]
    assert (
        len(strings) == 2 + 226
        and strings[2:5] == ["<box_start>", "<box_end>", "<loc-0>"]
        and strings[-1] == "<loc-223>"
    )
    assert location_strings(0) == [] and TokenRegistry().groups()["grounding"] == ["<box>", "</box>"]


def test_a_call_is_written_and_read_back():
    call = TaskCall(
        task="segment", instruction="the red 7", regions=(Region(box=(0.25, 0.5, 0.75, 1.0), label="red 7"),)
    )
    text = format_call(call, registry=SEEDX)
    assert text == (
        "<segment>the red 7</segment><box>red 7<box_start><loc-112><loc-168><loc-112><loc-112><box_end></box>"
    )
    parsed = parse_reply(f"Sure. {text}", policy="strict", registry=SEEDX)
    assert parsed.problems == () and parsed.text == "Sure."
    assert parsed.calls[0].regions == call.regions and parsed.calls[0].instruction == "the red 7"


@given(st.lists(st.floats(0.0, 0.9), min_size=2, max_size=2), st.lists(st.floats(0.01, 0.1), min_size=2, max_size=2))
def test_boxes_come_back_within_a_bin(corner, size):
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    text = format_region(Region(box=box, label="x"), registry=SEEDX)
    (region,) = parse_reply(text, policy="strict", registry=SEEDX).regions
    assert all(abs(a - b) <= 1.01 / 224 for a, b in zip(region.box, box, strict=True))


def test_seedx_own_form_without_a_grounding_pair_is_a_region():
    parsed = parse_reply("A cat <box_start><loc-112><loc-112><loc-20><loc-20><box_end> sits.", registry=SEEDX)
    assert parsed.text == "A cat sits." and parsed.problems == ()
    assert parsed.regions[0].box == pytest.approx((102 / 224, 102 / 224, 122 / 224, 122 / 224))


def test_padding_is_undone():
    text = format_region(Region(box=(0.25, 0.25, 0.5, 0.75)), (80, 40), SEEDX)
    (region,) = parse_reply(text, extent=(80, 40), registry=SEEDX).regions
    assert region.box == pytest.approx((0.25, 0.25, 0.5, 0.75), abs=0.01)


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("<box_start><loc-1><loc-2><loc-3><box_end>", "bad_number_count"),
        ("<box_start><loc-1><loc-2><loc-300><loc-3><box_end>", "out_of_range"),
        ("<box_start><loc-10><loc-20><loc-3>x<loc-3><box_end>", "bad_number"),
        ("<box_start><loc-10><loc-20><loc-3><loc-3>", "unclosed"),
        ("<box_start><loc-223><loc-20><loc-100><loc-3><box_end>", "out_of_range"),
    ],
)
@pytest.mark.parametrize("form", ["<box>red {}</box>", "red {}"])
def test_broken_boxes_are_problems(inner, code, form):
    parsed = parse_reply("It: " + form.format(inner), registry=SEEDX)
    assert code in {problem.code for problem in parsed.problems}
    assert "loc-" not in parsed.text and "box_" not in parsed.text


@given(
    st.lists(
        st.sampled_from(
            ["<box>", "</box>", "<box_start>", "<box_end>", "<loc-3>", "<loc-999>", "a ", "<segment>", "</segment>"]
        ),
        max_size=20,
    )
)
def test_no_string_makes_it_raise_or_gives_a_box_outside_the_picture(pieces):
    for policy in ("strict", "repair", "text_only"):
        parsed = parse_reply("".join(pieces), policy=policy, registry=SEEDX)
        boxes = [region.box for region in (*parsed.regions, *(r for call in parsed.calls for r in call.regions))]
        assert all(0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1 for x0, y0, x1, y1 in boxes)


def test_negative_bins_are_refused():
    with pytest.raises(TokenError, match="bins counts the location tokens .* got -1"):
        TokenRegistry(bins=-1)
