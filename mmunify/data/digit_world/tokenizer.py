"""The tokenizer of the digit world's text backbone: known words are single entries, anything else falls to bytes.

python -m mmunify.data.digit_world.tokenizer FOLDER
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from mmunify.data.digit_world.words import vocabulary
from mmunify.tokens import DIGIT_TASKS, TokenRegistry

SPECIALS = ("<pad>", "<s>", "</s>")
CHAT_WORDS = ("USER", "ASSISTANT")
PIECES = r" ?scene:|\d\.\d{3}[,\]]?| ?\d\[| ?[A-Za-z]+\d*| ?\d+(?!\.\d{3})| ?[^\sA-Za-z\d]|\s"
"""How text falls into pieces: a word or a number with the blank before it, a mark, or white space.

What a coordinate is looked up by ends in the piece before it ("7[", "0.125,"), so that one step of attention finds it.
"""


def build_tokenizer() -> Any:
    """A byte-level BPE tokenizer without merges: a piece is one entry if it is known, else bytes.

    Coordinates ("0.125") and the places of scenes in words ("left12") are single entries; task and grounding strings
    are added tokens. Media strings are left out: a model adds them as new rows.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = dict.fromkeys([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *_known_pieces()])
    table = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=table, merges=[], ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIALS, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    groups = TokenRegistry(tasks=DIGIT_TASKS).groups()
    added = [AddedToken(string, special=False, normalized=False) for string in groups["tasks"] + groups["grounding"]]
    fast.add_tokens(added)  # type: ignore[arg-type]
    return fast


def _known_pieces() -> Iterator[str]:
    """Every word as it stands at the start of a text and after a blank, in byte-level spelling."""
    blank = "Ġ"
    for word in (*vocabulary(), *CHAT_WORDS):
        if re.fullmatch(r"\d\.\d{3}", word):
            yield from (word, f"{word},", f"{word}]")  # coordinates follow a bracket or a comma
        elif re.fullmatch(r"[a-z]+\d+", word):
            yield blank + word  # places follow a name
        else:
            yield from (word, blank + word)
    yield from (f"{blank}{digit}[" for digit in range(10))


if __name__ == "__main__":
    build_tokenizer().save_pretrained(sys.argv[1])
