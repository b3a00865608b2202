"""The words beside a medium, as ids, for adapters that read them with it (InstructBLIP)."""

from collections.abc import Callable
from functools import cache
from typing import Any

from mmunify.errors import CheckpointError, DataError
from mmunify.types import Media, Sample, SideText, Text


def words_beside(media: Media, sample: Sample) -> str:
    """The words of the turn that a medium stands in, without other media."""
    turn = next(turn for turn in sample.turns if any(part is media for part in turn.parts))
    words = (part.text.strip() for part in turn.parts if isinstance(part, Text))
    return " ".join(word for word in words if word)


def side_ids(words: str, text: SideText, own: Callable[[str], list[int]]) -> tuple[int, ...]:
    """Ids of the words, with the begin and end tokens of their own tokenizer; those of the backbone have none.

    Args:
        words: the text.
        text: how they are read.
        own: the backbone's ids of a string.

    Raises:
        DataError: an id that the adapter doesn't know.
        CheckpointError: a tokenizer that can't be read.
    """
    ids = _tokenizer(text.path)(words).input_ids if text.path else own(words)
    kept = tuple(ids[: text.max_length])
    if kept and max(kept) >= text.vocab_size:
        raise DataError(
            f"the words beside a medium have the id {max(kept)}, and their adapter knows {text.vocab_size}: give its "
            f"`text` the vocab_size of its tokenizer ({text.path or 'that of the backbone'})"
        )
    return kept


@cache
def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the tokenizer {path!r} of the words beside media cannot be read: {error}") from error
