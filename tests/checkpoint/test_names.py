import pytest

from mmunify.checkpoint.names import Names

NAMES = Names(
    [
        ("a.*.out.dense.", "blocks.*.out."),
        ("a.*.out.", "blocks.*.norm."),
        ("single", "parts.only"),
        ("a.b+c.", "d."),
    ]
)
PAIRS = [
    ("a.12.out.dense.weight", "blocks.12.out.weight"),
    ("a.3.out.bias", "blocks.3.norm.bias"),
    ("single", "parts.only"),
    ("a.b+c.d.0.e", "d.d.0.e"),
]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_one_table_is_read_both_ways(theirs, ours):
    assert NAMES.ours(theirs) == ours
    assert NAMES.theirs(ours) == theirs


@pytest.mark.parametrize("name", ["a.x.out.weight", "singles", "single.weight", "a.bbc.weight", "a.1.out."])
def test_names_that_the_table_lacks(name):
    assert NAMES.ours(name) is None
