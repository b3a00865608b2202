"""What came out of a cell."""

import json

import pytest

from mmunify.ablate.outcome import Outcome, load_outcome


def outcome(**changes):
    values = {"question": {"accuracy": {"value": 0.5}}, "refer": {"iou": {"value": 0.9}}}
    return Outcome(**{"arm": "a b", "seed": 1, "fingerprint": "x", "values": values, **changes})


def test_values_and_means_of_several():
    one = outcome()
    assert one.value("question/accuracy") == 0.5
    assert one.value(["question/accuracy", "refer/iou"]) == pytest.approx(0.7)
    assert one.value("caption/exact_match") is None
    assert one.value(["question/accuracy", "caption/exact_match"]) is None


def test_there_and_back_until_something_changes(tmp_path):
    file = tmp_path / "cells" / "a.json"
    outcome(trained=3).save(file)
    assert load_outcome(file, "x") == outcome(trained=3)
    assert load_outcome(file, "y") is None
    assert load_outcome(tmp_path / "none.json", "x") is None
    assert not list(file.parent.glob("*.new"))


def test_an_error_is_tried_again(tmp_path):
    file = tmp_path / "a.json"
    outcome(error="UserError: no").save(file)
    assert json.loads(file.read_text())["error"] == "UserError: no"
    assert load_outcome(file, "x") is None
