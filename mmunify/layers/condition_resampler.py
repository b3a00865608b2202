"""Features of a picture as the condition of a U-Net: a sequence for its cross-attention and a pooled vector."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmunify.errors import DataError
from mmunify.layers.perceiver import PerceiverBlock
from mmunify.layers.vector_pool import VectorPool


class ConditionResampler(nn.Module):
    """Learned latents read the features, then become what two text encoders would have said (SEED-X, arXiv 2404.14396).

    Args:
        in_dim: width of the features.
        out_dim: width of the sequence.
        pooled_dim: width of the pooled vector; None = there is none.
        num_queries: length of the sequence.
        dim: width of the latents.
        depth: number of blocks.
        num_heads: of every attention.
        head_dim: of the blocks' attention.
        inputs: features are averaged in groups of successive ones until they are this many (SEED-X: 64 of 256);
            features that are this many already pass, so encoder and head may feed the same module. None = all are read.
        final_norm: whether the sequence is normalised (IP-Adapter).
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        pooled_dim: int | None = None,
        num_queries: int = 64,
        dim: int = 1024,
        depth: int = 4,
        num_heads: int = 16,
        head_dim: int = 64,
        inputs: int | None = None,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.shrink = nn.Linear(in_dim, dim)
        self.latents = nn.Parameter(torch.randn(num_queries, dim) / dim**0.5)
        self.blocks = nn.ModuleList(PerceiverBlock(dim, num_heads, head_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, out_dim)
        self.final_norm = nn.LayerNorm(out_dim) if final_norm else nn.Identity()
        self.pool = VectorPool(num_queries, dim, pooled_dim, num_heads) if pooled_dim else None

    def forward(
        self, states: Float[Tensor, "K N E"], mask: Bool[Tensor, "K N"] | None = None
    ) -> tuple[Float[Tensor, "K Q C"], Float[Tensor, "K P"] | None]:
        """Features -> sequence and pooled vector; `mask` is True where a feature is real.

        Raises:
            DataError: a number of features that `inputs` doesn't divide.
        """
        memory = self.shrink(states if self.inputs is None else average_groups(states, self.inputs))
        mask = mask if self.inputs is None or states.shape[1] == self.inputs else None
        latents = self.latents.expand(len(memory), -1, -1)
        for block in self.blocks:
            latents = block(latents, memory, mask)
        latents = self.norm(latents)
        pooled = None if self.pool is None else self.pool(latents)
        return self.final_norm(self.project(latents)), pooled


def average_groups(states: Float[Tensor, "K N E"], num_groups: int) -> Float[Tensor, "K G E"]:
    """Means of groups of successive states, so that `num_groups` are left.

    Raises:
        DataError: N is no multiple of `num_groups`.
    """
    length = states.shape[1]
    if length % num_groups:
        raise DataError(f"{length} features can't be averaged to inputs={num_groups}: it is no multiple of it")
    return F.avg_pool1d(states.transpose(1, 2), length // num_groups).transpose(1, 2)
