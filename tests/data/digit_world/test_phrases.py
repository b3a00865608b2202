"""Phrases: the list of all of them is complete, and the braces are the ones that tasks fill."""

import re

from mmunify.data.digit_world import phrases
from mmunify.data.digit_world.edits import GLOBAL_EDITS
from mmunify.data.digit_world.questions import ASKERS


def _strings(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return [text for item in items for text in _strings(item)]


def test_every_constant_is_listed() -> None:
    constants = [value for name, value in vars(phrases).items() if name.isupper() and name != "SCENE"]
    keys = {*phrases.QUESTION, *phrases.RELATIONS} - {*phrases.SIDES}
    assert {text for value in constants for text in _strings(value)} - keys == set(phrases.all_phrases())


def test_braces_are_known() -> None:
    found = set(re.findall(r"{(.*?)}", " ".join(phrases.all_phrases())))
    assert found == {"what", "color", "digit", "name", "side", "first", "second", "relation"}


def test_every_edit_and_question_has_its_phrases() -> None:
    assert set(phrases.EDIT) == set(GLOBAL_EDITS)
    assert set(phrases.QUESTION) == set(ASKERS)
