"""Sample -> Example: ids, labels and slots of one conversation, with its media read and normalised."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from mmunify.data.cache.items import StoredItem
from mmunify.data.cache.reading import Caches, find_stored
from mmunify.data.chat import ChatTemplate, Segment, render
from mmunify.data.numbers import open_numbers, prepare_numbers, read_numbers
from mmunify.data.pictures import prepare, prepare_views, read_picture
from mmunify.data.regions import region_row
from mmunify.data.side_text import side_ids, words_beside
from mmunify.data.sound import prepare_sound, read_sound
from mmunify.data.targets import read_region_target
from mmunify.data.video import open_clip, prepare_clip
from mmunify.errors import DataError
from mmunify.layers.clips import ClipPreprocess
from mmunify.layers.numbers import NumbersPreprocess
from mmunify.layers.region_frames import RegionPreprocess
from mmunify.layers.sounds import SoundPreprocess
from mmunify.layers.target_frames import RegionTarget
from mmunify.layers.tiling import Dynamic
from mmunify.tokens import TokenRegistry, format_call, format_region
from mmunify.tokens.slots import num_places, opening
from mmunify.types import Layout, Media, ModelSpec, NodeSpec, Output, Preprocess, Sample, SlotSpec, Text

IGNORED = -100
"""Label of a position that isn't learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaItem:
    """One medium for one encoder node.

    Attributes:
        values: [F C H W] of a picture or a clip, [K 1 B W] of a sound, [V] of a region; None = `stored` stands in.
        extent: original (width, height); (samples, 1) of a sound.
        slots: positions of its slots.
        part_of: for a region, its medium: encoder node and number among the sample's items of that node.
        any_size: whether items of other sizes may be packed with it: the encoder knows the real one from the extent.
        side: ids of the words beside it, where its adapter reads them.
        key: of its features in the cache; "" = they aren't cached.
        stored: its cached features.
        reread: reads the values after all, for a batch whose other items aren't in the cache.
    """

    values: Tensor | None
    extent: tuple[int, int]
    slots: tuple[int, ...]
    part_of: tuple[str, int] | None = None
    any_size: bool = False
    side: tuple[int, ...] = ()
    key: str = ""
    stored: StoredItem | None = None
    reread: Callable[[], "MediaItem"] | None = None


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
        turn_task: index of the turn's task per position, if turns have tasks of their own.
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
    turn_task: list[int] = field(default_factory=list)


class SampleEncoder:
    """Lays one sample out as ids, labels and slots.

    Args:
        spec: the model's nodes, as plain data.
        tokenizer: of the backbone, with all special strings added; None for a model without a backbone.
        tokens: the token registry.
        template: the words around turns.
        max_length: longer samples are refused, never cut.

    Attributes:
        caches: encoder node -> what the feature cache holds of it, for nodes that are cached.
    """

    def __init__(
        self, spec: ModelSpec, tokenizer: Any, tokens: TokenRegistry, template: ChatTemplate, max_length: int
    ) -> None:
        self.spec, self.tokenizer, self.tokens = spec, tokenizer, tokens
        self.template, self.max_length = template, max_length
        slots = [node.slot for node in spec.outputs.values() if node.slot is not None and not node.slot.as_text]
        self.openings = tuple(dict.fromkeys(opening(slot) for slot in slots))
        self._ids: dict[str, list[int]] = {}
        self.caches: Caches = {}

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
            turn_task=row.turn_task if any(turn.task for turn in sample.turns) else [],
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
        self.turn_task: list[int] = []
        self._task = 0
        self._kinds: list[str] = []
        self._extents: dict[str, list[tuple[int, int]]] = {}
        self._segments = 0
        self._position = 0
        self._tail = " "

    def place(self, segment: Segment, sample: Sample, prompt: bool) -> None:
        part, self._task = segment.part, self.encoder.tokens.task_index(segment.task)
        if isinstance(part, Text):
            self._tail = part.text[-1:] or self._tail
            begun = next((string for string in self.encoder.openings if string in part.text), None)
            if segment.learned and begun is not None:
                raise DataError(
                    f"sample {sample.id!r} opens an output slot with {begun!r} in its words and never fills it; put an "
                    "Output there (in a record: a placeholder with an entry in outputs)"
                )
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
        self.turn_task += [self._task] * len(ids)
        self._position += len(ids)

    def _place_media(self, media: Media, sample: Sample) -> None:
        nodes = {name: node for name, node in self.encoder.spec.media.items() if node.kind == media.kind}
        if not nodes:
            known = sorted({node.kind for node in self.encoder.spec.media.values()})
            raise DataError(
                f"sample {sample.id!r} holds a medium of kind {media.kind!r}; the model's encoders take {known}"
            )
        regions = isinstance(next(iter(nodes.values())).preprocess, RegionPreprocess)
        items = self._read_regions(media, nodes, sample) if regions else self._read_or_find(media, nodes, sample)
        for name, node in nodes.items():
            slot = _slot(node, items[name].extent)
            places = self._place_slots(slot, learned=False) if slot is not None else ()
            side = self._side(media, node, sample)
            self.media.setdefault(name, []).append(replace(items[name], slots=places, side=side))
        self._extents.setdefault(media.kind, []).append(items[next(iter(nodes))].extent)
        self._kinds.append(media.kind)

    def _side(self, media: Media, node: NodeSpec, sample: Sample) -> tuple[int, ...]:
        """Ids of the words beside a medium, if its adapter reads them."""
        if node.side_text is None:
            return ()
        return side_ids(words_beside(media, sample), node.side_text, self.encoder.ids)

    def _read_or_find(self, media: Media, nodes: Mapping[str, NodeSpec], sample: Sample) -> dict[str, MediaItem]:
        """What the cache holds of a medium, if it holds all; else the medium itself, with the key for its features."""
        key, stored = find_stored(media.source, list(nodes), self.encoder.caches)
        if stored is None:
            return {name: replace(item, key=key) for name, item in _read_whole(media, nodes, sample).items()}
        reread = {name: partial(_read_one, media, name, node, sample) for name, node in nodes.items()}
        return {
            name: MediaItem(values=None, extent=item.extent, slots=(), key=key, stored=item, reread=reread[name])
            for name, item in stored.items()
        }

    def _read_regions(self, media: Media, nodes: Mapping[str, NodeSpec], sample: Sample) -> dict[str, MediaItem]:
        return {name: self._read_region(media, node.preprocess, sample) for name, node in nodes.items()}

    def _read_region(self, media: Media, preprocess: Any, sample: Sample) -> MediaItem:
        """A region of the latest medium that its node reads, or of the one whose number the source is."""
        known = self.encoder.spec.media
        named = [preprocess.medium, *(name for name, node in known.items() if node.kind == preprocess.medium)]
        reader = next((name for name in named if name in known), "")
        extents = self._extents.get(known[reader].kind, []) if reader else []
        number = media.source if isinstance(media.source, int) else len(extents) - 1
        if media.region is None or not 0 <= number < len(extents):
            raise DataError(
                f"sample {sample.id!r}: a medium of kind {media.kind!r} needs region: and a medium of "
                f"{preprocess.medium!r} before it; got region {media.region!r} and source {media.source!r} "
                f"after {len(extents)} of them"
            )
        frame = known[reader].preprocess or preprocess
        try:
            row = region_row(media.region, extents[number], frame, preprocess)
        except DataError as error:
            raise DataError(f"sample {sample.id!r}: {error}") from error
        return MediaItem(values=row, extent=extents[number], slots=(), part_of=(reader, number))

    def _place_output(self, output: Output, learned: bool, sample: Sample, prompt: bool) -> None:
        nodes = {name: node for name, node in self.encoder.spec.outputs.items() if node.kind == output.kind}
        made = {name: node for name, node in nodes.items() if node.slot is None or not node.slot.as_text}
        said = all(node.slot is None for node in made.values()) and self._say(output, learned)
        if not said and not nodes:
            known = sorted({node.kind for node in self.encoder.spec.outputs.values()})
            raise DataError(f"sample {sample.id!r}: no head makes an output of kind {output.kind!r}; they make {known}")
        if made and output.target is None and not prompt:
            raise DataError(f"sample {sample.id!r}: no target for its {output.kind} output, which {list(made)} learn")
        places = self._place_shared(made, learned)
        for name, node in made.items():
            condition = self._condition(output.condition, node, sample)
            source = output.target.get(name) if isinstance(output.target, Mapping) else output.target
            target = None if source is None else self._target(source, node, condition, sample)
            item = OutputItem(target=target, slots=places[name], condition=condition)
            self.outputs.setdefault(name, []).append(item)

    def _say(self, output: Output, learned: bool) -> bool:
        """Write an output that fills no slot in words; False where there are none for it."""
        words = self._in_words(output)
        if words:
            lead = "" if self._tail.isspace() else " "
            self.add(self.encoder.ids(lead + words), learned)
        return bool(words)

    def _in_words(self, output: Output) -> str:
        """What stands for an output that no head makes: its call, or its region of the medium that it starts from."""
        tokens = self.encoder.tokens
        if output.call is not None or output.region is None:
            return "" if output.call is None else format_call(output.call, registry=tokens)
        index = len(self._kinds) - 1 if output.condition is None else output.condition
        kind = self._kinds[index] if 0 <= index < len(self._kinds) else ""
        extents = self._extents.get(kind, [])[self._kinds[: max(index, 0)].count(kind) :]
        return format_region(output.region, extents[0] if extents else None, tokens)

    def _place_shared(self, made: Mapping[str, NodeSpec], learned: bool) -> dict[str, tuple[int, ...]]:
        """Positions of one output for every node; nodes whose slots begin with the same string share the longest."""
        places: dict[str, tuple[int, ...]] = {name: () for name, node in made.items() if node.slot is None}
        slots = {name: node.slot for name, node in made.items() if node.slot is not None}
        for begin in dict.fromkeys(opening(slot) for slot in slots.values()):
            sharing = {name: slot for name, slot in slots.items() if opening(slot) == begin}
            whole = self._place_slots(max(sharing.values(), key=num_places), learned)
            places |= {name: whole[: num_places(slot)] for name, slot in sharing.items()}
        return places

    def _place_slots(self, slot: SlotSpec, learned: bool) -> tuple[int, ...]:
        """Delimiters, strings and slot positions of one item; returns its positions, see `num_places`."""
        self.add(self.encoder.ids(slot.opens), learned and "opens" in slot.learned)
        first = len(self.input_ids) - 1
        self._segments += 1
        places: list[int] = []
        written: list[int] = []
        shared = self._position
        for run in (slot.layout or Layout(runs=())).runs:
            if run.token:
                self.add(self.encoder.ids(run.token), learned and not slot.learned.isdisjoint(("inside", run.token)))
                written.append(len(self.input_ids) - 1)
                continue
            places += range(len(self.input_ids), len(self.input_ids) + run.slots)
            self.add(self.encoder.ids(self.encoder.tokens.slot) * run.slots, learned=False)
        places = places or written
        for place in places:
            self.segment[place] = self._segments
            self.full[place] = slot.attention == "full"
            if slot.positions == "shared":
                self.position_ids[place] = shared
        if slot.positions == "shared":
            self._position = shared + 1
        self.add(self.encoder.ids(slot.closes), learned and "closes" in slot.learned)
        return tuple(places or [first])

    def _target(self, source: Any, node: NodeSpec, condition: tuple[str, int] | None, sample: Sample) -> Tensor:
        """[C H W] of a picture, a region in its encoder's frame, or numbers where the node reads no picture."""
        try:
            if node.preprocess is None:
                return read_numbers(source)
            if isinstance(node.preprocess, RegionTarget):
                kind = node.preprocess.frame.kind
                extent = None if condition is None else self._extents[kind][condition[1]]
                return read_region_target(source, extent, node.preprocess)
            return prepare(read_picture(source), node.preprocess)
        except DataError as error:
            raise DataError(f"sample {sample.id!r}: {error}") from error

    def _condition(self, index: int | None, node: NodeSpec, sample: Sample) -> tuple[str, int] | None:
        """The medium that an output starts from; a region is one of the latest medium where nothing else is said."""
        if index is None and isinstance(node.preprocess, RegionTarget):
            kinds = [kind == node.preprocess.frame.kind for kind in self._kinds]
            index = len(kinds) - 1 - kinds[::-1].index(True) if any(kinds) else None
        if index is None:
            return None
        if index >= len(self._kinds):
            raise DataError(
                f"sample {sample.id!r}: an output starts from medium {index}, but only {len(self._kinds)} came before"
            )
        kind = self._kinds[index]
        if isinstance(node.preprocess, RegionTarget) and kind != node.preprocess.frame.kind:
            raise DataError(
                f"sample {sample.id!r}: a {node.preprocess.kind} of medium {index}, of kind {kind!r}; its head looks "
                f"at media of kind {node.preprocess.frame.kind!r}"
            )
        name = next(name for name, each in self.encoder.spec.media.items() if each.kind == kind)
        return name, self._kinds[:index].count(kind)


def _open(source: Any, sample_id: str) -> Any:
    try:
        return read_picture(source)
    except DataError as error:
        raise DataError(f"sample {sample_id!r}: {error}") from error


def _read_one(media: Media, name: str, node: NodeSpec, sample: Sample) -> MediaItem:
    return _read_whole(media, {name: node}, sample)[name]


def _read_whole(media: Media, nodes: Mapping[str, NodeSpec], sample: Sample) -> dict[str, MediaItem]:
    """Every node's own numbers of one medium; all nodes of its kind read it the same way."""
    preprocess = next(iter(nodes.values())).preprocess
    reader = next((reader for kind, reader in STREAMS.items() if isinstance(preprocess, kind)), None)
    if reader is None:
        return _read_pictures(media, nodes, sample)
    open_medium, prepare_medium = reader
    try:
        medium = open_medium(media.source)
        values = {name: prepare_medium(medium, node.preprocess) for name, node in nodes.items()}
    except DataError as error:
        raise DataError(f"sample {sample.id!r}: {error}") from error
    return {name: MediaItem(values=value, extent=medium.extent, slots=()) for name, value in values.items()}


STREAMS: dict[type[Preprocess], tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    ClipPreprocess: (open_clip, prepare_clip),
    SoundPreprocess: (read_sound, prepare_sound),
    NumbersPreprocess: (open_numbers, prepare_numbers),
}
"""Preprocessing of media that are no pictures -> what opens one, and what makes an encoder's numbers of it."""


def _read_pictures(media: Media, nodes: Mapping[str, NodeSpec], sample: Sample) -> dict[str, MediaItem]:
    """Every node's own view, or views, of one picture."""
    picture = _open(media.source, sample.id)
    items = {}
    for name, node in nodes.items():
        if node.preprocess is None:
            raise DataError(f"the encoder of {node.kind!r} states no preprocessing, so its media can't be read")
        views = prepare_views(picture, node.preprocess)
        any_size = isinstance(node.preprocess, Dynamic)
        items[name] = MediaItem(values=views, extent=picture.size, slots=(), any_size=any_size)
    return items


def _slot(node: NodeSpec, extent: tuple[int, int]) -> SlotSpec | None:
    """How an item of this size lies in the sequence."""
    dynamic = node.slot is not None and isinstance(node.preprocess, Dynamic)
    return node.preprocess.slot(node.slot, extent) if dynamic else node.slot  # type: ignore[union-attr]
