"""Learnable queries that read the encoder's tokens through a small BERT."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.layers.bert import NORM_EPS, BertBlock, TextEmbedding
from mmunify.layers.idle import touch
from mmunify.layers.part_options import read_options
from mmunify.layers.positions import with_positions
from mmunify.layers.rasters import tokens_per_frame
from mmunify.layers.temporal import TemporalPositions
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout, SideText

RASTER, FRAMES = (True, "both"), ("frames", "both")


@ADAPTERS.register("qformer")
class QFormerAdapter(Adapter):
    """The Q-Former of BLIP-2 (https://arxiv.org/abs/2301.12597): queries -> blocks -> linear to D.

    With `text`, it reads the text beside the item too, as in InstructBLIP (https://arxiv.org/abs/2305.06500).
    Queries read the tokens of all frames and tiles of an item together, as in UnifiedMLLM's video and sound branches
    (https://arxiv.org/abs/2408.02503): its frames take `positions: frames`, its sound segments too.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer); None = no linear at the end, for an adapter behind.
        num_queries: Q, the number of slots.
        depth: number of blocks (BLIP-2: 12).
        dim: width of the queries; None = E (BLIP-2: 768). Feed-forwards are 4 dim wide.
        num_heads: heads of every attention; None = one per 64 numbers of `dim`.
        cross_attention_frequency: every how many blocks the queries read the tokens, from the first on.
        dropout: of states and attention (BLIP-2 trains with 0.1).
        positions: what the tokens are told of their place: true = 2-D positions in their raster, for towers that say
            little about place; "frames" = a learned vector per frame or sound segment; "both".
        text: arguments of `SideText`: `vocab_size` (InstructBLIP: 30523) and the tokenizer's `path`; None = it reads no
            text.

    Raises:
        UserError: a depth or a frequency below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None,
        num_queries: int = 32,
        depth: int = 6,
        dim: int | None = None,
        num_heads: int | None = None,
        cross_attention_frequency: int = 2,
        dropout: float = 0.0,
        positions: bool | Literal["frames", "both"] = False,
        text: dict | None = None,
    ) -> None:
        super().__init__()
        reading = _reading(depth, cross_attention_frequency)
        dim = dim or in_dim
        self.positions, self.num_queries = positions, num_queries
        self.side_text = None if text is None else read_options(SideText, text, "qformer.text")
        self.needs = frozenset({"side_text"} if text else ())
        self.temporal = TemporalPositions(in_dim) if positions in FRAMES else None
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.text = _text_embedding(self.side_text, dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        wordy = [self.text is not None] * (depth - 1) + [False]  # nothing reads what the last block says of the words
        self.blocks = nn.ModuleList(
            BertBlock(dim, in_dim if reads else None, num_heads or max(1, dim // 64), dropout=dropout, text=words)
            for reads, words in zip(reading, wordy, strict=True)
        )
        self.project = nn.Identity() if out_dim is None else nn.Linear(dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Q slots, whatever the encoder's layout."""
        return Layout.of(self.num_queries)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, Q, D)."""
        memory = self._memory(features)
        states, seen = self._states(len(memory), context)
        for block in self.blocks:
            states = block(states, memory, features.mask, seen, self.num_queries)
        return Embeds(tokens=self.project(states[:, : self.num_queries]))

    def _memory(self, features: Features) -> Float[Tensor, "M N E"]:
        """The tokens with what they are told of their place."""
        tokens = with_positions(features) if self.positions in RASTER else features.tokens
        return tokens if self.temporal is None else self.temporal(tokens, tokens_per_frame(features))

    def _states(self, num_items: int, context: Context) -> tuple[Float[Tensor, "M T d"], Bool[Tensor, "M T"] | None]:
        """Queries, and the words behind them; and which of these are real."""
        states, ids = self.queries.expand(num_items, -1, -1), context.side_ids
        if self.text is None or ids is None:
            wordless = [] if self.text is None else [self.text]
            return self.dropout(self.norm(touch(states, wordless))), None
        states = torch.cat([states, self.text(ids)], dim=1)
        real = torch.ones_like(ids, dtype=torch.bool) if context.side_mask is None else context.side_mask.bool()
        seen = torch.cat([real.new_ones(num_items, self.num_queries), real], dim=1)
        return self.dropout(self.norm(states)), seen


def _text_embedding(text: SideText | None, dim: int) -> TextEmbedding | None:
    return None if text is None else TextEmbedding(text.vocab_size, dim, text.max_length)


def _reading(depth: int, frequency: int) -> list[bool]:
    """Which blocks read the tokens."""
    if depth < 1 or frequency < 1:
        raise UserError(
            f"a qformer needs depth and cross_attention_frequency of at least 1, got {depth} and {frequency}"
        )
    return [index % frequency == 0 for index in range(depth)]
