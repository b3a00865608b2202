"""The strings of a slot, read off its `SlotSpec`."""

from mmunify.types import SlotSpec


def inner_strings(slot: SlotSpec) -> tuple[str, ...]:
    """Vocabulary strings inside the item, in order."""
    return tuple(run.token for run in slot.layout.runs if run.token) if slot.layout is not None else ()


def opening(slot: SlotSpec) -> str:
    """The string with which the item begins: `opens`, or the first one inside (`[IMG0]`)."""
    return slot.opens or next(iter(inner_strings(slot)), "")


def strings(slot: SlotSpec) -> tuple[str, ...]:
    """All strings of the item, in order; none for one that is written as text."""
    if slot.as_text:
        return ()
    return tuple(string for string in (slot.opens, *inner_strings(slot), slot.closes) if string)


def num_places(slot: SlotSpec) -> int:
    """Positions whose states belong to the item: its slots; without any, its strings; without those, its opening."""
    slots = slot.layout.num_slots if slot.layout is not None else 0
    return slots or len(inner_strings(slot)) or 1
