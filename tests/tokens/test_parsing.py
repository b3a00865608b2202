import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.errors import TokenError
from mmunify.tokens import TokenRegistry, parse_reply, parsing

VALID = (
    "Sure. <segment>the red 7</segment><box>red 7[0.125,0.250,0.375,0.500]</box> Now <edit>invert the colors</edit> "
    "and <layout_to_image>two</layout_to_image><box>red 7[0.1,0.2,0.3,0.4]</box>, <box>blue 3[0.5, 0.5, 0.9,0.9]</box>."
)
POLICIES = st.sampled_from(["strict", "repair", "text_only"])
PIECES = [
    "<segment>",
    "</segment>",
    "<box>",
    "</box>",
    "[",
    "]",
    "<",
    ">",
    "0.5,",
    "-1",
    "nan",
    "<img>",
    "</s>",
    "&#32;",
    "é",
]


def codes(text, policy="repair", **options):
    return [problem.code for problem in parse_reply(text, policy, **options).problems]


def boxes(reply):
    return [region.box for call in reply.calls for region in call.regions]


def test_calls_regions_and_words_in_order():
    reply = parse_reply(VALID)
    assert [(call.task, call.instruction) for call in reply.calls] == [
        ("segment", "the red 7"),
        ("edit", "invert the colors"),
        ("layout_to_image", "two"),
    ]
    assert [[region.label for region in call.regions] for call in reply.calls] == [["red 7"], [], ["red 7", "blue 3"]]
    assert boxes(reply) == [(0.125, 0.25, 0.375, 0.5), (0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.9, 0.9)]
    assert reply.text == "Sure. Now and,."
    assert reply.problems == ()


def test_spans_point_at_the_whole_call():
    reply = parse_reply(VALID)
    assert [VALID[slice(*call.span)] for call in reply.calls] == [
        "<segment>the red 7</segment><box>red 7[0.125,0.250,0.375,0.500]</box>",
        "<edit>invert the colors</edit>",
        VALID[VALID.index("<layout") : -1],
    ]


def test_grounding_without_a_call_is_a_region_whose_label_stays_a_word():
    reply = parse_reply("The <box>red 7[0.1,0.2,0.3,0.4][0.5,0.5,0.6,0.6]</box> is left of <box>blue 3[0,0,1,1]</box>.")
    assert [(region.label, region.box) for region in reply.regions] == [
        ("red 7", (0.1, 0.2, 0.3, 0.4)),
        ("red 7", (0.5, 0.5, 0.6, 0.6)),
        ("blue 3", (0, 0, 1, 1)),
    ]
    assert reply.text == "The red 7 is left of blue 3."
    assert reply.calls == ()


def test_grounding_belongs_to_the_call_before_it_unless_words_part_them():
    apart = parse_reply("<edit>invert</edit> as for <box>red 7[0,0,1,1]</box>")
    assert apart.calls[0].regions == () and len(apart.regions) == 1
    needed = parse_reply("<remove>it</remove>, found at <box>red 7[0,0,1,1]</box>")
    assert len(needed.calls[0].regions) == 1 and needed.regions == () and needed.text == ", found at red 7"


def test_a_pair_may_hold_several_labels():
    (call,) = parse_reply("<segment>both</segment><box>red 7[0,0,1,1] blue 3[0,0,1,1]</box>").calls
    assert [region.label for region in call.regions] == ["red 7", "blue 3"]


GROUND = "<box>a[0,0,1,1]</box>"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<segment>x" + GROUND, "unclosed"),
        ("<segment>x</segment><box>a[0,0,1,1]", "unclosed"),
        ("<segment>x</segment><box>a[0,0,1,1</box>", "unclosed"),
        ("x</segment>", "unopened"),
        ("<segment>x" + GROUND + "</segment>", "nested"),
        ("<segment></segment>" + GROUND, "empty_payload"),
        ("<paint>x</paint>", "unknown_task"),
        ("<segment>x</segment>", "missing_grounding"),
        ("<segment>x</segment><box>a[0,0,1]</box>", "bad_number_count"),
        ("<segment>x</segment><box>a</box>", "bad_number_count"),
        ("<segment>x</segment><box>a[0,0,one,1]</box>", "bad_number"),
        ("<segment>x</segment><box>a[0,0,nan,1]</box>", "bad_number"),
        ("<segment>x</segment><box>a[0,0,1.5,1]</box>", "out_of_range"),
        ("<segment>x</segment><box>a[0.5,0,0.2,1]</box>", "inverted_box"),
        ("<segment>x</segment><box>a[0.5,0,0.5,1]</box>", "inverted_box"),
        ("<segment>x</segment><box>a" + "[0,0,1,1]" * 31 + "</box>", "too_many_boxes"),
    ],
)
def test_every_problem_has_its_code_and_costs_the_call_when_strict(text, code):
    assert code in codes(text)
    assert parse_reply(text, "strict").calls == ()
    assert codes(text, "strict") == codes(text) == codes(text, "text_only")


def test_a_bad_call_leaves_its_neighbours_alone_when_strict():
    text = "<edit>invert</edit><segment>x</segment> and <box>[0,0,1,1" + "<remove>y</remove>" + GROUND
    assert [call.task for call in parse_reply(text, "strict").calls] == ["edit", "remove"]


def test_repair_swaps_clips_and_closes():
    reply = parse_reply("<segment>x<box>a[0.5,0.2,0.3,1.4][1,2][0,0,0.1,0.1")
    assert boxes(reply) == [(0.3, 0.2, 0.5, 1.0), (0, 0, 0.1, 0.1)]
    assert [call.instruction for call in reply.calls] == ["x"]


def test_repair_names_an_empty_call_after_its_regions_and_cuts_what_is_too_much():
    text = "<segment> </segment><box>red 7[0,0,1,1]</box><box>blue 3" + "[0,0,1,1]" * 40 + "</box>"
    (call,) = parse_reply(text).calls
    assert call.instruction == "red 7 and blue 3" and len(call.regions) == 30
    assert parse_reply("<edit></edit>").calls == ()


def test_a_box_in_the_padding_is_a_problem_only_with_an_extent():
    text = "<box>sky[0.0,0.0,1.0,0.1]</box>"
    assert codes(text) == [] and codes(text, extent=(100, 50)) == ["out_of_range"]
    assert parse_reply("<box>sky[0,0.25,1,0.5]</box>", extent=(100, 50)).regions[0].box == (0, 0, 1, 0.5)


def test_text_only_keeps_words_and_bare_regions():
    reply = parse_reply(VALID + " See <box>red 7[0,0,1,1]</box>", "text_only")
    assert reply.calls == () and len(reply.regions) == 1
    assert reply.text == "Sure. Now and,. See red 7"


def test_media_strings_and_unknown_tags_leave_their_words():
    reply = parse_reply("Here <img><slot><slot></img> is <paint>the sky</paint> .")
    assert reply.text == "Here is the sky." and codes("<img><slot></img>") == []


def test_a_registry_decides_what_is_known():
    assert codes("<edit>x</edit>", registry=TokenRegistry(tasks=("segment",))) == ["unknown_task"]


def test_an_unknown_policy_is_refused():
    with pytest.raises(TokenError, match="unknown policy 'lenient'; choose one of strict, repair, text_only"):
        parse_reply("x", "lenient")


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join), POLICIES)
def test_no_string_raises(text, policy):
    reply = parse_reply(text, policy, extent=(640, 480))
    assert all(0 <= x <= 1 for box in boxes(reply) for x in box)
    assert reply.text == reply.text.strip()


def test_a_stray_tag_between_a_call_and_its_box_is_a_problem_of_the_call():
    text = "<segment>t</segment></segment><box>red 7[0.1,0.2,0.3,0.4]</box> <edit>flip it</edit>"
    assert [call.task for call in parse_reply(text, "strict").calls] == ["edit"]
    assert [call.task for call in parse_reply(text, "repair").calls] == ["segment", "edit"]
    assert [problem.code for problem in parse_reply(text).problems] == ["unopened"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 9), st.sampled_from(["", *PIECES])), max_size=5),
    POLICIES,
)
def test_mutated_replies_never_raise_and_strict_calls_are_whole(mutations, policy):
    text = VALID
    for at, length, piece in mutations:
        text = text[:at] + piece + text[at + length :]
    reply = parse_reply(text, policy)
    assert policy != "text_only" or reply.calls == ()
    for call in reply.calls:
        assert call.regions or call.task not in ("segment", "layout_to_image") or policy == "repair"
        assert policy != "strict" or not any(call.span[0] <= p.span[0] < call.span[1] for p in reply.problems)


@pytest.mark.parametrize(
    "piece", ["<", "[", "<segment>", "</box>", "<box>a[0,0,1,1]</box>", "<box>[", "<edit>x</edit> y "]
)
def test_long_broken_replies_are_read_in_linear_time(piece, monkeypatch):
    seen = []
    for name in ("is_gap", "_read_regions"):
        inner = getattr(parsing, name)
        monkeypatch.setattr(
            parsing, name, lambda text, *more, inner=inner: seen.append(len(text)) or inner(text, *more)
        )
    text = "<edit>x</edit> y" + piece * 2_000
    assert parse_reply(text).calls[0].instruction == "x"
    assert sum(seen) <= len(text)  # no character is looked at twice
