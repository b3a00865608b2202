"""Which output slots a model can open, and with which strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmunify.data.processor import Processor
from mmunify.model import UnifiedModel
from mmunify.parts import Head
from mmunify.tokens.slots import inner_strings, num_places, opening, strings
from mmunify.types import SlotSpec


@dataclass(frozen=True, slots=True)
class SlotKind:
    """Slots that begin with one string: their longest spec, and the heads that read it."""

    spec: SlotSpec
    heads: Mapping[str, Head]


def slot_kinds(model: UnifiedModel, processor: Processor) -> dict[int, SlotKind]:
    """Id that opens a slot -> its kind."""
    found: dict[int, SlotKind] = {}
    for node, head in model.heads.items():
        spec: SlotSpec | None = head.spec  # type: ignore[assignment]
        if spec is None or spec.as_text:
            continue
        opener = processor.encoder.ids(opening(spec))[-1]
        known = found.get(opener, SlotKind(spec, {}))
        longest = max(known.spec, spec, key=num_places)
        found[opener] = SlotKind(longest, {**known.heads, node: head})  # type: ignore[dict-item]
    return found


def forbidden_ids(processor: Processor, slots: Mapping[int, SlotKind]) -> list[int]:
    """Ids that generation never chooses: slot positions, input media, and strings of slots but the opening ones."""
    groups = processor.tokens.groups()
    inside = [string for kind in slots.values() for string in strings(kind.spec)]
    vocabulary = processor.tokenizer.get_vocab()
    listed = [*groups["media"], *groups["outputs"], *inside]
    return sorted({vocabulary[string] for string in listed if string in vocabulary} - set(slots))


def inside_ids(processor: Processor, spec: SlotSpec) -> list[int]:
    """Ids of the strings inside an item that follow its opening string."""
    inside: Sequence[str] = inner_strings(spec)
    return [number for string in (inside if spec.opens else inside[1:]) for number in processor.encoder.ids(string)]
