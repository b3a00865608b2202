"""Tables and files."""

import json

from rich.console import Console

from mmunify.evaluate.report import format_measure, markdown_table, print_table, save_json, table_rows
from mmunify.evaluate.statistics import Measure, rate

RESULTS = {
    "segment": {
        "ciou": Measure(0.71234, 40, 0.6, 0.8),
        "ciou_blank": Measure(0.1, 40, 0.05, 0.2),
        "ciou_truth": Measure(0.93, 40, 0.9, 0.95),
        "ciou_random": Measure(0.02, 40, 0.0, 0.04),
    },
    "parse": {"rate": rate([True] * 40), "rate_blank": rate([True] * 39 + [False])},
}


def test_json_is_what_other_programs_read(tmp_path):
    written = json.loads(save_json(RESULTS, tmp_path / "new" / "scores.json").read_text())
    assert written["segment"]["ciou"] == {"value": 0.71234, "n": 40, "low": 0.6, "high": 0.8}
    assert list(written) == ["segment", "parse"]


def test_baselines_stand_beside_their_metric():
    rows = list(table_rows(RESULTS))
    assert rows[0] == ["segment", "ciou", "40", "0.712 [0.60, 0.80]", "0.100", "0.930", "0.020"]
    assert rows[1] == ["parse", "rate", "40", "1.000 [0.91, 1.00]", "0.975", "", ""]


def test_a_metric_that_only_sounds_like_a_baseline_has_a_row_of_its_own():
    rows = list(table_rows({"x": {"success_random": rate([True])}}))
    assert [row[1] for row in rows] == ["success_random"]


def test_decibels_have_one_decimal():
    assert format_measure("background_psnr", Measure(31.26, 3, 30.0, 33.0)) == "31.3 [30.0, 33.0]"


def test_the_printed_table_holds_values_and_numbers():
    console = Console(record=True, width=160)
    print_table(RESULTS, console)
    text = console.export_text()
    assert "0.712 [0.60, 0.80]" in text
    assert "true calls" in text
    assert text.count("segment") == 1


def test_markdown_can_show_what_was_before():
    lines = markdown_table(RESULTS, before={"parse": {"rate": rate([False] * 4)}}).splitlines()
    assert lines[0].startswith("| protocol | metric | n | before training | model | blanked media |")
    assert lines[2].startswith("| segment | ciou | 40 |  | 0.712")
    assert lines[3].startswith("| parse | rate | 40 | 0.000 [0.00, 0.49] | 1.000")
