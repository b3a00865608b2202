"""The Assistant: a conversation with a model, its task experts and its de-tokenizers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.data.pictures import read_picture
from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.experts.router import DIGIT_EXPERTS, TaskRouter
from mmunify.infer.decode import detokenizer_answers, made_by, mask_answers, output_heads, read_boxes, slot_task
from mmunify.infer.generate import MAX_OUTPUTS, Generated, generate
from mmunify.model import UnifiedModel
from mmunify.parts import Workspace
from mmunify.tokens import ParsedReply, bounding_box, format_region, parse_reply
from mmunify.tokens.slots import num_places, opening
from mmunify.types import Artifact, Media, Output, Region, Reply, Sample, Source, TaskCall, Text, Turn

PHRASE = re.compile(r"<p>([^<>]*)</p>\s*\Z")
"""The phrase that a mask belongs to, right before it."""


@dataclass
class Memory:
    """What the conversation holds so far.

    Attributes:
        turns: as the model saw and wrote them.
        media: of the user and of the experts, newest last: what experts work on.
        extent: (width, height) of the latest image that the model was shown; its boxes are relative to that one.
        unseen: a picture that an expert made and that the next turn shows to the model.
    """

    turns: tuple[Turn, ...] = ()
    media: tuple[Media, ...] = ()
    extent: tuple[int, int] | None = None
    unseen: Media | None = None


class Assistant:
    """Answers prompts with text, boxes, and what the routed experts make; remembers the conversation.

    Args:
        model: the model.
        processor: the model's.
        router: answers the calls.
        policy: how broken replies are read, see `parse_reply`.
        feed_back: show a picture that an expert made to the model in the next turn. Experts always go on with it.
        seed: of the experts' and de-tokenizers' draws.
        options: handed to experts in their workspace.

    Attributes:
        tasks: head node -> task of the calls that its output slots make.
        memory: the conversation so far.
        saved: files of the latest reply's artifacts.
    """

    def __init__(
        self,
        model: UnifiedModel,
        processor: Processor,
        router: TaskRouter,
        policy: str = "repair",
        feed_back: bool = True,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.policy, self.feed_back, self.seed, self.options = policy, feed_back, seed, dict(options or {})
        self.tasks = {node: slot_task(model, node) for node in output_heads(model)}
        self.router = router.with_conditioned({**detokenizer_answers(model), **mask_answers(model)})
        self.memory = Memory()
        self.saved: list[Path] = []

    @classmethod
    def load(cls, bundle: Bundle | str | Path, **settings: Any) -> "Assistant":
        """From a Bundle, or the folder of one.

        Experts are those of its recipe; a recipe without any gets the experts without weights for its tasks.

        Raises:
            CheckpointError: no bundle in the folder, or a broken one.
        """
        if isinstance(bundle, str | Path):
            bundle = load_bundle(bundle)
        shipped = {task: node for task, node in DIGIT_EXPERTS.items() if task in bundle.model.tokens.task_names}
        experts = bundle.recipe.build_experts() if bundle.recipe.experts else TaskRouter.build(shipped).experts
        return cls(bundle.model, bundle.processor(), TaskRouter(experts), **settings)

    def reset(self) -> None:
        """Forget the conversation."""
        self.memory, self.saved = Memory(), []

    def reply(
        self,
        prompt: str,
        image: Source | None = None,
        video: Source | None = None,
        audio: Source | None = None,
        region: Region | None = None,
        max_new_tokens: int = 128,
        out: str | Path | None = None,
    ) -> Reply:
        """Answer one turn. A turn that fails leaves the conversation as it was.

        Args:
            prompt: what the user says.
            image: a path, an array [H W 3] or a PIL image, shown before the words.
            video, audio: likewise.
            region: a part of the latest image, written behind the prompt as its box.
            max_new_tokens: vocabulary tokens of the answer.
            out: folder to save the artifacts in; `saved` then lists the files.

        Raises:
            UserError: nothing was said, or a region without an image.
            DataError: a medium that cannot be read, or that the model has no encoder for.
        """
        heard = self._listen(prompt, image, {"video": video, "audio": audio}, region)
        sample = Sample(turns=heard.turns, id=f"turn {len(heard.turns)}")
        (written,) = generate(self.model, self.processor, [sample], max_new_tokens=max_new_tokens)
        parsed = parse_reply(written.text, self.policy, heard.extent, self.model.tokens)
        slots = self._slot_calls(written, prompt) if self.policy != "text_only" else []
        calls = sorted([*parsed.calls, *slots], key=lambda call: call.span or (0, 0))
        artifacts, faults = self.router.run(calls, Workspace(media=heard.media, seed=self.seed, options=self.options))
        self.memory = self._remember(heard, written.text, artifacts)
        self.saved = [artifact.save(out) for artifact in artifacts] if out is not None else []
        return Reply(
            text=parsed.text,
            raw=written.text,
            calls=tuple(calls),
            regions=(*parsed.regions, *self._slot_regions(written, heard.extent)),
            artifacts=artifacts,
            problems=(*_problems(parsed, written, max_new_tokens), *map(str, faults)),
        )

    # --------------------------------------------------------------------------------------- pieces

    def _listen(
        self, prompt: str, image: Source | None, others: Mapping[str, Source | None], region: Region | None
    ) -> Memory:
        """The memory with the user's turn at its end."""
        memory = self.memory
        given = [Media(kind=kind, source=source) for kind, source in others.items() if source is not None]
        shown = memory.unseen
        if image is not None:
            shown = Media(kind="image", source=read_picture(image))
            given.insert(0, shown)
        seen = given if shown is None or image is not None else [shown, *given]
        extent = memory.extent if shown is None else read_picture(shown.source).size
        words = _with_region(prompt, region, extent, self.model)
        if not words.strip():
            raise UserError(f"the prompt is {prompt!r}; say or ask something")
        turn = Turn(role="user", parts=(*seen, Text(text=words)))
        return Memory(turns=(*memory.turns, turn), media=(*memory.media, *given), extent=extent)

    def _slot_calls(self, written: Generated, prompt: str) -> list[TaskCall]:
        """One call per output slot, where it stands in the text, with the features that its head predicted."""
        calls = []
        for node, items in written.predictions.items():
            if made_by(self.model, node) not in ("features", "mask"):
                continue
            opens = opening(self.model.spec().outputs[node].slot)  # type: ignore[arg-type]
            places = [found.span() for found in re.finditer(re.escape(opens), written.text)]
            for span, condition in zip(places, items, strict=False):
                phrase = PHRASE.search(written.text, 0, span[0])
                words = phrase[1].strip() if phrase else prompt
                calls.append(TaskCall(task=self.tasks[node], instruction=words, condition=condition, span=span))
        return calls

    def _slot_regions(self, written: Generated, extent: tuple[int, int] | None) -> list[Region]:
        """Boxes that heads predicted, of the latest picture that the model saw."""
        nodes = [node for node in written.predictions if made_by(self.model, node) == "box"]
        if extent is None:
            return []
        return [box for node in nodes for box in read_boxes(self.model, node, written.predictions[node], extent)]

    def _remember(self, heard: Memory, raw: str, artifacts: tuple[Artifact, ...]) -> Memory:
        """The memory with the assistant's turn and what the experts made."""
        pictures = tuple(Media(kind="image", source=made.data) for made in artifacts if made.kind == "image")
        drawn = {made.call.span: made.data for made in artifacts if made.call.condition is not None}
        turn = Turn(role="assistant", parts=tuple(_spoken(raw, _slot_kinds(self.model), drawn)))
        unseen = pictures[-1] if pictures and self.feed_back else None
        return replace(heard, turns=(*heard.turns, turn), media=(*heard.media, *pictures), unseen=unseen)


def _slot_kinds(model: UnifiedModel) -> dict[tuple[str, str], str]:
    """(opening, closing) string of the output slots -> kind of what they hold."""
    nodes = [node for node in model.spec().outputs.values() if node.slot is not None and not node.slot.as_text]
    nodes = sorted(nodes, key=lambda node: num_places(node.slot))  # type: ignore[arg-type]  # the longest slot wins
    return {(opening(node.slot), node.slot.closes): node.kind for node in nodes}  # type: ignore[arg-type, union-attr]


def _spoken(raw: str, kinds: Mapping[tuple[str, str], str], drawn: Mapping[Any, Any]) -> Iterator[Text | Output]:
    """The assistant's turn: its words, with an output where it filled a slot; `drawn` by span of the opening."""
    at = 0
    for start, opens, closes in _slots(raw, kinds):
        if raw[at:start]:
            yield Text(text=raw[at:start])
        yield Output(kind=kinds[opens, closes], target=drawn.get((start, start + len(opens))))
        at = start + len(opens) + len(closes)
    if raw[at:] or not at:
        yield Text(text=raw[at:])


def _slots(raw: str, kinds: Mapping[tuple[str, str], str]) -> list[tuple[int, str, str]]:
    """Where the output slots stand: (start, opening, closing string), in order."""
    return sorted(
        (found.start(), opens, closes)
        for opens, closes in kinds
        for found in re.finditer(re.escape(opens + closes), raw)
    )


def _with_region(prompt: str, region: Region | None, extent: tuple[int, int] | None, model: UnifiedModel) -> str:
    if region is None:
        return prompt
    if extent is None:
        raise UserError(f"region {region.label!r} is a part of an image, and no image was given; pass image=")
    boxed = Region(box=bounding_box(region), label=region.label)
    return f"{prompt} {format_region(boxed, extent, model.tokens)}"


def _problems(parsed: ParsedReply, written: Generated, max_new_tokens: int) -> list[str]:
    cut = [] if written.finished else [f"cut: the answer was not finished after max_new_tokens={max_new_tokens}"]
    full = [f"too_many_outputs: the answer wanted more than its {MAX_OUTPUTS} outputs"] if written.wanted_more else []
    return [*map(str, parsed.problems), *cut, *full]
