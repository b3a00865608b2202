"""Layouts count their slots."""

from mmunify.types import Layout, Run


def test_strings_are_not_slots():
    layout = Layout(runs=(Run(slots=4, grid=(2, 2)), Run(token="\n"), Run(slots=2)))
    assert layout.num_slots == 6
    assert Layout.of(9, grid=(3, 3)).runs[0].grid == (3, 3)
