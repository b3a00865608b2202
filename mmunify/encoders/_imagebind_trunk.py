"""The blocks of ImageBind's trunks, and their names in its published weights."""

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.layers.feed_forward import FeedForward

NORM_EPS = 1e-6

PUBLIC = {
    "class_token": "modality_preprocessors.audio.cls_token",
    "positions": "modality_preprocessors.audio.pos_embedding_helper.pos_embed",
    "patches.": "modality_preprocessors.audio.rgbt_stem.proj.",
    "patch_norm.": "modality_preprocessors.audio.rgbt_stem.norm_layer.",
    "blocks.": "modality_trunks.audio.blocks.",
    "norm.": "modality_heads.audio.0.",
    "project.": "modality_heads.audio.2.",
}
"""How names begin here -> how they begin there."""

INSIDE = {
    "attention_norm.": "norm_1.",
    "attention.": "attn.",
    "feed_forward_norm.": "norm_2.",
    "feed_forward.expand.": "mlp.fc1.",
    "feed_forward.reduce.": "mlp.fc2.",
}
"""The same, behind the number of a block."""


class TrunkBlock(nn.Module):
    """Self-attention with one more, learned key and value; then a feed-forward; each behind a norm, around a residual.

    Args:
        dim: width of the tokens.
        num_heads: of the attention.
        drop_path: probability that a branch is left out for an item, in training.
    """

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = nn.MultiheadAttention(dim, num_heads, add_bias_kv=True, batch_first=True)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feed_forward = FeedForward(dim)

    def forward(self, tokens: Float[Tensor, "M N E"]) -> Float[Tensor, "M N E"]:
        """One block."""
        states = self.attention_norm(tokens)
        attended, _ = self.attention(states, states, states, need_weights=False)
        tokens = tokens + self._drop(attended)
        return tokens + self._drop(self.feed_forward(self.feed_forward_norm(tokens)))

    def _drop(self, branch: Float[Tensor, "M N E"]) -> Float[Tensor, "M N E"]:
        if not self.training or not self.drop_path:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


def to_public(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the audio trunk by the names of the published weights."""
    return {_renamed(name, PUBLIC, INSIDE): tensor for name, tensor in tensors.items()}


def from_public(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The audio trunk's tensors out of published weights; those of other kinds of media are passed over."""
    begins, inside = ({there: here for here, there in table.items()} for table in (PUBLIC, INSIDE))
    ours = {name: tensor for name, tensor in tensors.items() if name.startswith(tuple(begins))}
    return {_renamed(name, begins, inside): tensor for name, tensor in ours.items()}


def _renamed(name: str, begins: Mapping[str, str], inside: Mapping[str, str]) -> str:
    start = next(start for start in begins if name.startswith(start))
    number, rest = re.fullmatch(r"(\d+\.)?(.*)", name.removeprefix(start)).groups()  # type: ignore[union-attr]
    within = next((part for part in inside if number and rest.startswith(part)), "")
    return begins[start] + (number or "") + inside.get(within, "") + rest.removeprefix(within)
