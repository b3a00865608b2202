"""The Processor: everything between samples and batches, for one model."""

from collections.abc import Sequence
from typing import Any

from mmunify.data.chat import CHATS
from mmunify.data.collate import collate
from mmunify.data.encode import Example, SampleEncoder
from mmunify.errors import DataError
from mmunify.faults import unknown
from mmunify.tokens import TokenRegistry
from mmunify.types import Batch, ModelSpec, Sample


class Processor:
    """Samples -> Examples -> Batch.

    Args:
        spec: `UnifiedModel.spec()`: the nodes as plain data.
        tokenizer: of the backbone (None without one).
        tokens: the token registry of the recipe.
        chat: name of the chat template.
        max_length: positions of a row; longer samples are refused.

    Raises:
        DataError: unknown template.
    """

    def __init__(
        self, spec: ModelSpec, tokenizer: Any, tokens: TokenRegistry, chat: str = "vicuna", max_length: int = 2048
    ) -> None:
        if chat not in CHATS:
            raise DataError(unknown("chat template", chat, list(CHATS)))
        self.spec, self.tokenizer, self.tokens, self.chat = spec, tokenizer, tokens, chat
        self.encoder = SampleEncoder(spec, tokenizer, tokens, CHATS[chat], max_length)

    @property
    def max_length(self) -> int:
        """Largest number of positions of a row."""
        return self.encoder.max_length

    @property
    def pad_id(self) -> int:
        """Id at padding positions; it is never looked at."""
        tokenizer = self.tokenizer
        return next(
            (i for i in (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None)) if i), 0
        )

    @property
    def stop_id(self) -> int | None:
        """Id that ends an assistant's turn."""
        eos = (self.tokenizer.eos_token or "") if self.tokenizer is not None else ""
        ids = self.encoder.ids(CHATS[self.chat].after["assistant"].replace("{eos}", eos))
        return ids[0] if ids else None

    def encode(self, sample: Sample, prompt: bool = False) -> Example:
        """Lay one sample out; `prompt` prepares it for generation (it ends with the user's turn)."""
        return self.encoder(sample, prompt)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad and pack examples into a batch."""
        return collate(examples, self.pad_id)

    def __call__(self, samples: Sequence[Sample], prompt: bool = False) -> Batch:
        """Encode and collate."""
        return self.collate([self.encode(sample, prompt) for sample in samples])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids; special strings stay visible, slot positions don't."""
        slot = self.tokenizer.get_vocab().get(self.tokens.slot)
        text = self.tokenizer.decode([i for i in ids if i != slot], skip_special_tokens=False)
        return text.strip()
