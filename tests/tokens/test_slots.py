from mmunify.tokens import TokenRegistry
from mmunify.tokens.slots import inner_strings, num_places, opening, strings
from mmunify.types import Layout, Run, SlotSpec

QUERIES = SlotSpec(opens="<img>", closes="</img>", layout=Layout.of(4))
SIGNALS = SlotSpec(layout=Layout(runs=(Run(token="[A]"), Run(token="[B]"))))


def test_strings_of_slots():
    assert (opening(QUERIES), inner_strings(QUERIES), strings(QUERIES)) == ("<img>", (), ("<img>", "</img>"))
    assert (opening(SIGNALS), inner_strings(SIGNALS), strings(SIGNALS)) == ("[A]", ("[A]", "[B]"), ("[A]", "[B]"))
    assert strings(SlotSpec(as_text=True)) == ()


def test_places_are_slots_or_strings_or_the_opening_one():
    assert [num_places(slot) for slot in (QUERIES, SIGNALS, SlotSpec(opens="<img>"))] == [4, 2, 1]


def test_the_registry_takes_what_it_does_not_have():
    tokens = TokenRegistry().with_signals(["<img>", "[A]", "[A]"]).with_signals(["[B]", "[A]"])
    assert tokens.signals == ("[A]", "[B]")
    assert tokens.groups()["signals"] == ["[A]", "[B]"]
    assert TokenRegistry().with_signals(["<img>"]) == TokenRegistry()
