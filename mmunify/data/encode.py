"""Sample -> Example: ids, labels and slots of one conversation, with its media read and normalised."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmunify.data.chat import ChatTemplate, Segment, render
from mmunify.data.pictures import prepare, read_picture
from mmunify.errors import DataError
from mmunify.tokens import TokenRegistry, format_call
from mmunify.types import Layout, Media, ModelSpec, NodeSpec, Output, Sample, SlotSpec, Text

IGNORED = -100
"""Label of a position that isn't learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaItem:
    """One medium for one encoder node: [F C H W] values, original extent, positions of its slots."""

    values: Tensor
    extent: tuple[int, int]
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputItem:
    """One output for one head node: its target if known, positions of its slots, the medium that it starts from."""

    target: Tensor | None
    slots: tuple[int, ...]
    condition: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One encoded conversation.

    Attributes:
        input_ids, labels, position_ids, segment, full: one number per position (see `Attention`).
        media: encoder node -> items in order; outputs: head node -> items in order.
        task: index in the task table; id: the sample's; key: integer that random draws depend on.
    """

    input_ids: list[int]
    labels: list[int]
    position_ids: list[int]
    segment: list[int]
    full: list[bool]
    media: Mapping[str, Sequence[MediaItem]] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[OutputItem]] = field(default_factory=dict)
    task: int = 0
    id: str = ""
    key: int = 0


class SampleEncoder:
    """Lays one sample out as ids, labels and slots.

    Args:
        spec: the model's nodes, as plain data.
        tokenizer: of the backbone, with all special strings added; None for a model without a backbone.
        tokens: the token registry.
        template: the words around turns.
        max_length: longer samples are refused, never cut.
    """

    def __init__(
        self, spec: ModelSpec, tokenizer: Any, tokens: TokenRegistry, template: ChatTemplate, max_length: int
    ) -> None:
        self.spec, self.tokenizer, self.tokens = spec, tokenizer, tokens
        self.template, self.max_length = template, max_length
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Vocabulary ids of a string, without any added begin or end token."""
        if self.tokenizer is None or not text:
            return []
        if text not in self._ids:
            made = self.tokenizer(text, add_special_tokens=False).input_ids
            if len(text) > 40 or len(self._ids) > 20_000:  # only short strings come back often
                return made
            self._ids[text] = made
        return self._ids[text]

    def __call__(self, sample: Sample, prompt: bool = False) -> Example:
        """Encode one sample; `prompt` ends it with the words that open the assistant's turn.

        Raises:
            DataError: a medium can't be read, a kind has no node, or the sample is longer than `max_length`.
        """
        row = _Row(self)
        eos = (self.tokenizer.eos_token or "") if self.tokenizer is not None else ""
        if self.template.bos and self.tokenizer is not None and self.tokenizer.bos_token_id is not None:
            row.add([self.tokenizer.bos_token_id], learned=False)
        for segment in render(sample, self.template, eos, prompt):
            row.place(segment, sample, prompt)
        if len(row.input_ids) > self.max_length:
            raise DataError(
                f"sample {sample.id!r} has {len(row.input_ids)} positions, more than max_length={self.max_length}; "
                "raise max_length or shorten the sample"
            )
        return Example(
            input_ids=row.input_ids,
            labels=row.labels,
            position_ids=row.position_ids,
            segment=row.segment,
            full=row.full,
            media=row.media,
            outputs=row.outputs,
            task=self.tokens.task_index(sample.task),
            id=sample.id,
            key=zlib.crc32(f"{sample.source}/{sample.id}".encode()),
        )


class _Row:
    """The row under construction."""

    def __init__(self, encoder: SampleEncoder) -> None:
        self.encoder = encoder
        self.input_ids: list[int] = []
        self.labels: list[int] = []
        self.position_ids: list[int] = []
        self.segment: list[int] = []
        self.full: list[bool] = []
        self.media: dict[str, list[MediaItem]] = {}
        self.outputs: dict[str, list[OutputItem]] = {}
        self._kinds: list[str] = []
        self._segments = 0
        self._position = 0
        self._tail = " "

    def place(self, segment: Segment, sample: Sample, prompt: bool) -> None:
        part = segment.part
        if isinstance(part, Text):
            self._tail = part.text[-1:] or self._tail
            self.add(self.encoder.ids(part.text), segment.learned)
        elif isinstance(part, Media):
            self._place_media(part, sample)
        else:
            self._place_output(part, segment.learned, sample, prompt)

    def add(self, ids: Sequence[int], learned: bool) -> None:
        """Ordinary vocabulary at the next positions."""
        self.input_ids += ids
        self.labels += ids if learned else [IGNORED] * len(ids)
        self.position_ids += range(self._position, self._position + len(ids))
        self.segment += [0] * len(ids)
        self.full += [False] * len(ids)
        self._position += len(ids)

    def _place_media(self, media: Media, sample: Sample) -> None:
        nodes = {name: node for name, node in self.encoder.spec.media.items() if node.kind == media.kind}
        if not nodes:
            known = sorted({node.kind for node in self.encoder.spec.media.values()})
            raise DataError(
                f"sample {sample.id!r} holds a medium of kind {media.kind!r}; the model's encoders take {known}"
            )
        values, extent = {}, (0, 0)
        picture = _open(media.source, sample.id)
        for name, node in nodes.items():
            values[name], extent = _read(picture, node)
        for name, node in nodes.items():
            places = self._place_slots(node.slot, learned=False) if node.slot is not None else ()
            self.media.setdefault(name, []).append(MediaItem(values=values[name], extent=extent, slots=places))
        self._kinds.append(media.kind)

    def _place_output(self, output: Output, learned: bool, sample: Sample, prompt: bool) -> None:
        nodes = {name: node for name, node in self.encoder.spec.outputs.items() if node.kind == output.kind}
        made = {name: node for name, node in nodes.items() if node.slot is None or not node.slot.as_text}
        if output.call is not None and all(node.slot is None for node in made.values()):
            lead = "" if self._tail.isspace() else " "
            self.add(self.encoder.ids(lead + format_call(output.call, registry=self.encoder.tokens)), learned)
        elif not nodes:
            known = sorted({node.kind for node in self.encoder.spec.outputs.values()})
            raise DataError(f"sample {sample.id!r}: no head makes an output of kind {output.kind!r}; they make {known}")
        if made and output.target is None and not prompt:
            raise DataError(f"sample {sample.id!r}: no target for its {output.kind} output, which {list(made)} learn")
        for name, node in made.items():
            places = self._place_slots(node.slot, learned) if node.slot is not None else ()
            target = None if output.target is None else _target(output.target, node, sample.id)
            item = OutputItem(target=target, slots=places, condition=self._condition(output.condition, sample))
            self.outputs.setdefault(name, []).append(item)

    def _place_slots(self, slot: SlotSpec, learned: bool) -> tuple[int, ...]:
        """Delimiters, strings and slot positions of one item; returns the slot positions."""
        self.add(self.encoder.ids(slot.opens), learned and "opens" in slot.learned)
        self._segments += 1
        places: list[int] = []
        shared = self._position
        for run in (slot.layout or Layout(runs=())).runs:
            if run.token:
                self.add(self.encoder.ids(run.token), learned and "inside" in slot.learned)
                continue
            places += range(len(self.input_ids), len(self.input_ids) + run.slots)
            self.add(self.encoder.ids(self.encoder.tokens.slot) * run.slots, learned=False)
        for place in places:
            self.segment[place] = self._segments
            self.full[place] = slot.attention == "full"
            if slot.positions == "shared":
                self.position_ids[place] = shared
        if slot.positions == "shared":
            self._position = shared + 1
        self.add(self.encoder.ids(slot.closes), learned and "closes" in slot.learned)
        return tuple(places)

    def _condition(self, index: int | None, sample: Sample) -> tuple[str, int] | None:
        if index is None:
            return None
        if index >= len(self._kinds):
            raise DataError(
                f"sample {sample.id!r}: an output starts from medium {index}, but only {len(self._kinds)} came before"
            )
        kind = self._kinds[index]
        node = next(name for name, node in self.encoder.spec.media.items() if node.kind == kind)
        return node, self._kinds[:index].count(kind)


def _open(source: Any, sample_id: str) -> Any:
    try:
        return read_picture(source)
    except DataError as error:
        raise DataError(f"sample {sample_id!r}: {error}") from error


def _read(picture: Any, node: NodeSpec) -> tuple[Tensor, tuple[int, int]]:
    """[1 C H W] values and the original (width, height)."""
    if node.preprocess is None:
        raise DataError(f"the encoder of {node.kind!r} states no preprocessing, so its media can't be read")
    return prepare(picture, node.preprocess).unsqueeze(0), picture.size


def _target(source: Any, node: NodeSpec, sample_id: str) -> Tensor:
    """[C H W] of a picture, or the numbers themselves where the node reads no picture."""
    if node.preprocess is None:
        return torch.as_tensor(np.asarray(source), dtype=torch.float32)
    return prepare(_open(source, sample_id), node.preprocess)
