"""Samples -> prompts -> answers: what was asked, what should have been said, and what was said.

The truth of an answer is the sample's own assistant turn, written and parsed by the functions that write and parse the
model's replies; so every metric compares like with like. Baselines are made here too: the true calls, and random ones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmunify.data.pictures import read_picture
from mmunify.errors import DataError, TokenError
from mmunify.layers.target_frames import RegionTarget, restore_regions
from mmunify.tokens import ParsedReply, TokenRegistry, format_call, format_region, parse_reply
from mmunify.tokens.slots import opening
from mmunify.types import Box, Media, ModelSpec, Output, Region, Sample, TaskCall, Text, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A sample cut before one assistant turn.

    Attributes:
        sample: what the model sees: turns up to the user's, no task, no facts.
        whole: the sample that it was cut from, with task and facts.
        truth: the assistant turn that should follow.
        extent: (width, height) of the first picture; None without one.
    """

    sample: Sample
    whole: Sample
    truth: Turn
    extent: tuple[int, int] | None = None

    @property
    def media(self) -> tuple[Media, ...]:
        """The media that the user gave, in order."""
        return tuple(part for turn in self.sample.turns for part in turn.parts if isinstance(part, Media))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply to one prompt, read.

    Attributes:
        prompt: what was asked.
        text: everything that the model wrote.
        reply: the text, parsed.
        truth: the true reply, parsed.
        asked, given: names of the tasks and output slots, in order, of the truth and of the reply.
        predictions: output node -> what its head predicted.
        finished: False when the reply was cut off by its maximal length.
    """

    prompt: Prompt
    text: str
    reply: ParsedReply
    truth: ParsedReply
    asked: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    predictions: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = True

    @property
    def facts(self) -> Mapping[str, Any]:
        """Ground truth of the sample."""
        return self.prompt.whole.facts

    @property
    def task(self) -> str:
        """Task of the sample."""
        return self.prompt.whole.task


def make_prompt(sample: Sample, choice: int = 0) -> Prompt:
    """Cut a sample before one of its assistant turns.

    Args:
        sample: a whole conversation.
        choice: which assistant turn, modulo their number; earlier ones stay in the prompt as they should have been.

    Raises:
        DataError: the sample has no assistant turn.
    """
    turns = [index for index, turn in enumerate(sample.turns) if turn.role == "assistant"]
    if not turns:
        raise DataError(f"sample {sample.id!r} has no assistant turn, so there is nothing to compare a reply with")
    cut = turns[choice % len(turns)]
    # neither tasks nor facts reach the model: at inference nobody tells it what is tested
    seen = tuple(replace(turn, task="") for turn in sample.turns[:cut])
    prompt = Prompt(sample=Sample(turns=seen, id=sample.id), whole=sample, truth=sample.turns[cut])
    pictures = [medium for medium in prompt.media if medium.kind == "image"]
    return replace(prompt, extent=read_picture(pictures[0].source).size) if pictures else prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReader:
    """Turns texts into answers, for one model: its tokens, and which outputs fill slots instead of calling."""

    tokens: TokenRegistry
    spec: ModelSpec = field(default_factory=ModelSpec)

    def can_write(self, prompt: Prompt) -> bool:
        """Whether the model has the tokens that the true reply needs."""
        try:
            truth = self.write(prompt.truth, prompt.extent)
        except TokenError:
            return False
        return not parse_reply(truth, extent=prompt.extent, registry=self.tokens).problems

    def can_read(self, prompt: Prompt) -> bool:
        """Whether the model has encoders for the prompt's media."""
        kinds = {node.kind for node in self.spec.media.values()}
        return all(medium.kind in kinds for medium in prompt.media)

    def read(
        self, prompt: Prompt, text: str, predictions: Mapping[str, Any] | None = None, finished: bool = True
    ) -> Answer:
        """Parse a reply and the truth beside it."""
        reply = parse_reply(text, extent=prompt.extent, registry=self.tokens)
        reply = replace(reply, regions=(*reply.regions, *self._boxes(predictions or {}, prompt.extent)))
        true_text = self.write(prompt.truth, prompt.extent)
        return Answer(
            prompt=prompt,
            text=text,
            reply=reply,
            truth=parse_reply(true_text, extent=prompt.extent, registry=self.tokens),
            asked=self._names(true_text),
            given=self._names(text),
            predictions=predictions or {},
            finished=finished,
        )

    def write(self, turn: Turn, extent: tuple[int, int] | None) -> str:
        """A turn as the model should write it: words, calls, and empty output pairs where a head fills slots."""
        words = []
        for part in turn.parts:
            if isinstance(part, Text):
                words.append(part.text)
            elif isinstance(part, Output):
                words.append(self._write_output(part, extent))
        return "".join(words)

    def _write_output(self, output: Output, extent: tuple[int, int] | None) -> str:
        if slots := self._slots().get(output.kind):
            return "".join(slots)
        if output.region is not None and output.call is None:
            return format_region(output.region, extent, self.tokens)
        return format_call(output.call, extent, self.tokens) if output.call is not None else ""

    def _slots(self) -> dict[str, list[str]]:
        """Kind of output -> what stands in the text where heads of this model make one: `<img></img>`, `[SEG]`."""
        made: dict[str, list[str]] = {}
        for node in self.spec.outputs.values():
            if node.slot is not None and not node.slot.as_text:
                written = opening(node.slot) + node.slot.closes
                made[node.kind] = list(dict.fromkeys([*made.get(node.kind, []), written]))
        return made

    def _boxes(self, predictions: Mapping[str, Any], extent: tuple[int, int] | None) -> list[Region]:
        """Boxes that heads predicted, of the picture."""
        frames = {name: node.preprocess for name, node in self.spec.outputs.items() if name in predictions}
        return [
            region
            for name, frame in frames.items()
            if isinstance(frame, RegionTarget) and frame.kind == "box" and extent is not None
            for region in restore_regions(predictions[name], extent, frame.frame)
        ]

    def _names(self, text: str) -> tuple[str, ...]:
        """Tasks and output slots that a text opens, in order."""
        opens = {self.tokens.pair(task)[0]: task for task in self.tokens.task_names}
        opens |= {
            opening(node.slot): node.kind for node in self.spec.outputs.values() if node.slot and not node.slot.as_text
        }
        return tuple(opens[tag] for tag in re.findall("|".join(map(re.escape, opens)), text)) if opens else ()

    def with_calls(self, answer: Answer, calls: Sequence[TaskCall]) -> Answer:
        """The same answer as if the model had written these calls."""
        given = tuple(call.task for call in calls)
        return replace(answer, reply=ParsedReply(calls=tuple(calls)), given=given, predictions={})


def true_calls(answers: Sequence[Answer], reader: AnswerReader) -> list[Answer]:
    """Every answer with the calls that it should have had: the experts' ceiling."""
    return [reader.with_calls(answer, answer.truth.calls) for answer in answers]


def random_calls(answers: Sequence[Answer], reader: AnswerReader, seed: int = 0) -> list[Answer]:
    """Every answer with the calls of another sample of its task, their boxes moved to random places: chance."""
    rng = np.random.default_rng(seed)
    made = []
    for answer in answers:
        others = [other for other in answers if other.task == answer.task and other is not answer] or [answer]
        donor = others[rng.integers(len(others))]
        calls = [replace(call, regions=tuple(_moved(r, rng) for r in call.regions)) for call in donor.truth.calls]
        made.append(reader.with_calls(answer, calls))
    return made


def _moved(region: Region, rng: np.random.Generator) -> Region:
    """A region at a place drawn uniformly from those where it fits."""
    if region.box is None:
        return region
    width, height = region.box[2] - region.box[0], region.box[3] - region.box[1]
    x, y = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height))
    box: Box = (x, y, x + width, y + height)
    return replace(region, box=box)
