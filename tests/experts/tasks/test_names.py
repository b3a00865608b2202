import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmunify.experts.tasks._names import all_labels, artifact_name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("mask", "red 7"), "mask-red-7"),
        (("edited remove", "Café / ../etc"), "edited-remove-cafe-etc"),
        (("",), "artifact"),
        (("generated", "a red 7 " * 20), "generated-a-red-7-a-red-7-a-red-7-a-red-7-a-red-7-a-red-7-a"),
    ],
)
def test_names_say_what_they_are(words, name):
    assert artifact_name(*words) == name


@settings(deadline=None)
@given(st.text())
def test_names_are_safe_and_short(text):
    name = artifact_name(text)
    assert 0 < len(name) <= 60 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_labels_without_repetition():
    assert all_labels(["red 7", "", "red 7", "blue 3"], "object") == "red 7 blue 3"
    assert all_labels([""], "object") == "object"
