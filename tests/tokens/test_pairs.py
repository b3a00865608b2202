import pytest

from mmunify.errors import TokenError
from mmunify.tokens import DEFAULT_TOKENS, DIGIT_TASKS, TokenRegistry


def test_groups_hold_every_string_once():
    groups = TokenRegistry(tasks=["segment", "edit"], kinds=("image", "audio")).groups()
    assert groups == {
        "media": ["<slot>", "<image>", "</image>", "<audio>", "</audio>"],
        "outputs": ["<img>", "</img>", "<aud>", "</aud>"],
        "tasks": ["<segment>", "</segment>", "<edit>", "</edit>"],
        "grounding": ["<box>", "</box>"],
    }


def test_pairs_by_name_and_by_kind():
    tokens = TokenRegistry(tasks=("segment",), grounding="region", kinds=("image", "pose"))
    assert tokens.pair("segment") == ("<segment>", "</segment>")
    assert tokens.pair("region") == ("<region>", "</region>")
    assert tokens.pair("image") == ("<image>", "</image>")
    assert tokens.output_pair("image") == ("<img>", "</img>")
    assert tokens.output_pair("pose") == ("<out_pose>", "</out_pose>")
    assert tokens.slot == "<slot>"


def test_an_unknown_pair_is_refused_with_the_nearest_name():
    with pytest.raises(TokenError, match="'segmnt'; did you mean 'segment'"):
        DEFAULT_TOKENS.pair("segmnt")


def test_tasks_have_rows_and_everything_else_has_row_zero():
    assert [DEFAULT_TOKENS.task_index(task) for task in DIGIT_TASKS] == [1, 2, 3, 4, 5, 6, 7]
    assert DEFAULT_TOKENS.task_index("caption") == DEFAULT_TOKENS.task_index("") == 0


def test_which_tasks_need_regions_is_data():
    assert not DEFAULT_TOKENS.requires_regions("edit")
    assert DEFAULT_TOKENS.requires_regions("segment")
    assert not TokenRegistry(tasks=("segment",), grounded=()).requires_regions("segment")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("edit", "edit")}, "<edit> is taken twice"),
        ({"tasks": ("box",)}, "<box> is taken twice"),
        ({"tasks": ("img",)}, "<img> is taken twice"),
        ({"tasks": ("two words",)}, "'two words' cannot be a tag"),
        ({"tasks": (), "grounding": ""}, "'' cannot be a tag"),
    ],
)
def test_names_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(TokenError, match=message):
        TokenRegistry(**arguments)
