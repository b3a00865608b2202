"""Conversation -> segments: which words surround a turn, and which of them are learned."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mmunify.errors import DataError
from mmunify.types import Media, Output, Sample, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """What stands around the turns. `{eos}` is the tokenizer's end-of-sequence string.

    Attributes:
        before, after: role -> string before and after a turn. An assistant's `after` is learned: it ends the answer.
        lead: put before a turn's first words unless they begin with white space.
        bos: whether a sequence starts with the tokenizer's beginning-of-sequence token.
    """

    before: Mapping[str, str]
    after: Mapping[str, str]
    lead: str = ""
    bos: bool = True


CHATS: Mapping[str, ChatTemplate] = MappingProxyType(
    {
        "vicuna": ChatTemplate(
            before={"system": "", "user": "USER:", "assistant": " ASSISTANT:"},
            after={"system": " ", "user": "", "assistant": "{eos}"},
            lead=" ",
        ),
        "llama3": ChatTemplate(
            before={
                role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("system", "user", "assistant")
            },
            after=dict.fromkeys(("system", "user", "assistant"), "<|eot_id|>"),
        ),
        "chatml": ChatTemplate(
            before={role: f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")},
            after=dict.fromkeys(("system", "user", "assistant"), "<|im_end|>\n"),
            bos=False,
        ),
        "plain": ChatTemplate(
            before=dict.fromkeys(("system", "user", "assistant"), ""),
            after={"system": "\n", "user": "\n", "assistant": "{eos}"},
        ),
    }
)
"""The templates by name; a recipe chooses with `chat:`. Vicuna's is that of LLaVA-1.5 (no system sentence)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the conversation: words, a medium or an output, whether the words are learned, the turn's task."""

    part: Text | Media | Output
    learned: bool = False
    task: str = ""


def render(sample: Sample, template: ChatTemplate, eos: str, prompt: bool = False) -> Iterator[Segment]:
    """Segments of a conversation in order.

    Args:
        sample: the conversation.
        template: the words around its turns.
        eos: the tokenizer's end-of-sequence string.
        prompt: end with the words that open the assistant's turn, for generation.

    Raises:
        DataError: a prompt that ends with the assistant, or a sample without turns.
    """
    if not sample.turns:
        raise DataError(f"sample {sample.id!r} has no turns")
    for turn in sample.turns:
        task = turn.task or sample.task
        yield Segment(Text(text=template.before[turn.role]), task=task)
        answers = turn.role == "assistant"
        led = False
        for part in turn.parts:
            if not isinstance(part, Text):
                yield Segment(part, answers, task)
                continue
            lead = "" if led or part.text[:1].isspace() else template.lead
            led = True
            yield Segment(Text(text=lead + part.text), answers if part.learned is None else part.learned, task)
        yield Segment(Text(text=template.after[turn.role].replace("{eos}", eos)), answers, task)
    if prompt:
        if sample.turns[-1].role == "assistant":
            raise DataError(f"sample {sample.id!r} ends with the assistant's turn; a prompt must end with the user's")
        yield Segment(Text(text=template.before["assistant"]), task=sample.turns[-1].task or sample.task)
