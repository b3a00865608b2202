"""Signal tokens as the output of a text encoder."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class TextMapper(nn.Module):
    """An encoder-decoder transformer with learned queries: GILL (https://arxiv.org/abs/2305.17216), NExT-GPT, MGIE.

    No positions, pre-norm, ReLU, no dropout. The queries start apart from each other: where they all
    start at zero, as in one public version, all outputs stay alike.

    Args:
        in_dim: width of the states of the signal tokens.
        out_dim: width of the text encoder's states.
        num_queries: length of the text encoder's output (Stable Diffusion: 77, AudioLDM: 1).
        dim: width inside.
        depth: layers of the encoder, and of the decoder.
        num_heads: of every attention.
        hidden_dim: inside the feed-forwards.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_queries: int = 77,
        dim: int = 512,
        depth: int = 4,
        num_heads: int = 4,
        hidden_dim: int = 2048,
    ) -> None:
        super().__init__()
        self.shrink = nn.Linear(in_dim, dim)
        self.queries = nn.Parameter(torch.randn(num_queries, dim))
        sizes: dict[str, Any] = {"dropout": 0.0, "norm_first": True, "batch_first": True}
        reads = nn.TransformerEncoderLayer(dim, num_heads, hidden_dim, **sizes)
        writes = nn.TransformerDecoderLayer(dim, num_heads, hidden_dim, **sizes)
        self.encoder = nn.TransformerEncoder(reads, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(writes, depth, nn.LayerNorm(dim))
        self.project = nn.Linear(dim, out_dim)
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:  # layers of a stack are copies of one: draw each anew
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, states: Float[Tensor, "K r E"], mask: Bool[Tensor, "K r"] | None = None
    ) -> Float[Tensor, "K L C"]:
        """States at r signal tokens -> L states of a text encoder; `mask` is True where a state is real."""
        if not len(states):  # torch's attention can't split the heads of nothing
            return self(states.new_zeros(1, *states.shape[1:]))[:0]
        hidden = _hidden(mask)
        memory = self.encoder(self.shrink(states), src_key_padding_mask=hidden)
        queries = self.queries.expand(len(states), -1, -1)
        return self.project(self.decoder(queries, memory, memory_key_padding_mask=hidden))


def _hidden(mask: Bool[Tensor, "K r"] | None) -> Bool[Tensor, "K r"] | None:
    """True where a state is not real; an item without any real state shows all, since attention to nothing is NaN."""
    return None if mask is None else ~mask & mask.any(dim=1, keepdim=True)
