"""Outcomes -> tables."""

import csv
import io
import json

import pytest
from rich.console import Console

from mmunify.ablate.comparison import Comparison, Spread, spread
from mmunify.ablate.outcome import Outcome


def outcome(arm, seed, value=None, error=""):
    values = {} if error else {"question": {"accuracy": {"value": value}}}
    return Outcome(arm=arm, seed=seed, fingerprint="", trained=1234, seconds=10.0 * seed, values=values, error=error)


COMPARISON = Comparison(
    name="ranks",
    measures={"right": "question/accuracy"},
    outcomes=[outcome("low", 1, 0.5), outcome("high", 1, error="UserError: a | b"), outcome("low", 2, 0.7)],
    planned=4,
)


def test_spread_is_mean_and_sample_standard_deviation():
    assert spread([1.0, None, 3.0]) == Spread(2.0, 2**0.5, 2)
    assert spread([4.0]) == Spread(4.0, None, 1) and str(spread([4.0])) == "4.000"
    assert spread([None]) is None


def test_markdown_says_what_is_missing():
    text = COMPARISON.markdown()
    assert "| arm | seeds | learn | seconds | right |" in text
    assert "| low | 2 | 1,234 | 15 ± 7 | 0.600 ± 0.141 |" in text
    assert "| high | 0 (1 failed) |  |  |  |" in text
    assert "Unfinished: 3 of 4 cells." in text
    assert "- high, seed 1: UserError: a | b" in text


def test_files(tmp_path):
    COMPARISON.save(tmp_path / "new")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new/table.csv").read_text())))
    assert [(row["arm"], row["seed"], row["right"]) for row in rows] == [
        ("low", "1", "0.5"), ("high", "1", ""), ("low", "2", "0.7"),
    ]  # fmt: skip
    kept = json.loads((tmp_path / "new/results.json").read_text())
    assert kept["arms"]["low"]["measures"]["right"] == {"mean": 0.6, "std": pytest.approx(0.02**0.5), "n": 2}
    assert kept["arms"]["high"]["errors"] == {"1": "UserError: a | b"}
    assert len(kept["cells"]) == 3
    assert (tmp_path / "new/table.md").read_text().startswith("# ranks\n")


def test_without_measures_every_metric_is_a_column():
    assert Comparison(name="", measures={}, outcomes=COMPARISON.outcomes).rows()[0][4:] == ["question/accuracy"]


def test_a_narrow_screen_cuts_nothing_off():
    file = io.StringIO()
    COMPARISON.print(Console(file=file, width=20))
    shown = file.getvalue()
    assert "0.600 ± 0.141" in shown and "0 (1 failed)" in shown
    assert "failed: high, seed 1: UserError: a | b" in shown
