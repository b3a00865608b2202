"""One projection for many kinds of media: experts that are shared, mixed softly per kind."""

from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import DataError, UserError
from mmunify.layers.idle import touch
from mmunify.layers.llama import LlamaBlock
from mmunify.layers.pooling import masked_mean
from mmunify.layers.projector import projector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("universal_projection")
class UniversalProjectionAdapter(Adapter):
    """The universal projection module of OneLLM (https://arxiv.org/abs/2312.03700).

    Learned tokens of the medium's kind stand before the encoder's tokens; every expert, a stack of Llama blocks
    without order and causality, reads both; what the experts say at the learned tokens is mixed by a router's weights.
    Input and output projections, learned tokens and routers belong to a kind, experts to all. Delimiters around an
    item are vocabulary strings, as of any other node.

    The paper mixes by a softmax, the released code by sigmoids divided by their sum. In that code the router reads the
    learned tokens before any expert, so that its weights depend on the kind alone; `router_input: item` adds the mean
    of the encoder's tokens, so that they depend on the item.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        kinds: of media that come here.
        num_queries: learned tokens of a kind = slots of an item.
        num_experts: how many.
        depth: blocks of an expert.
        dim: width of the experts (OneLLM: 1024); None = E.
        num_heads: of an expert's attention; None = one per 64 numbers of `dim`.
        gate: how the router's numbers become weights.
        router_input: what the router reads.

    Raises:
        UserError: no kinds, or a count below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kinds: list[str] = ["image"],
        num_queries: int = 30,
        num_experts: int = 3,
        depth: int = 8,
        dim: int | None = None,
        num_heads: int | None = None,
        gate: Literal["sigmoid", "softmax"] = "sigmoid",
        router_input: Literal["queries", "item"] = "queries",
    ) -> None:
        super().__init__()
        if not kinds or min(num_queries, num_experts, depth) < 1:
            raise UserError(
                f"a universal_projection needs kinds, and num_queries, num_experts and depth of at least 1; "
                f"got {kinds}, {num_queries}, {num_experts}, {depth}"
            )
        dim = dim or in_dim
        heads = num_heads or max(1, dim // 64)
        self.num_queries, self.gate, self.router_input = num_queries, gate, router_input
        self.kinds = nn.ModuleDict({kind: KindLayers(in_dim, out_dim, dim, num_queries, num_experts) for kind in kinds})
        self.experts = nn.ModuleList(
            nn.ModuleList(LlamaBlock(dim, heads) for _ in range(depth)) for _ in range(num_experts)
        )

    def layout(self, layout: Layout) -> Layout:
        """The learned tokens, whatever the encoder's layout."""
        return Layout.of(self.num_queries)

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) -> (M, Q, D).

        Raises:
            DataError: a kind that it wasn't built for.
        """
        if context.kind not in self.kinds:
            raise DataError(f"this universal_projection has kinds {list(self.kinds)}, and a {context.kind!r} came")
        own = cast("KindLayers", self.kinds[context.kind])
        states = own.enter(features.tokens)
        weights = self._weights(own, states, features.mask)
        mixed = self._mix(states, features.mask, weights)
        return Embeds(tokens=touch(own.leave(mixed), [m for kind, m in self.kinds.items() if kind != context.kind]))

    def _weights(
        self, own: "KindLayers", states: Float[Tensor, "M T d"], mask: Bool[Tensor, "M N"] | None
    ) -> Float[Tensor, "M Q X"]:
        read = states[:, : self.num_queries]
        if self.router_input == "item":
            read = read + masked_mean(states[:, self.num_queries :], mask, keepdim=True)
        return GATES[self.gate](own.router(read))

    def _mix(
        self, states: Float[Tensor, "M T d"], mask: Bool[Tensor, "M N"] | None, weights: Float[Tensor, "M Q X"]
    ) -> Float[Tensor, "M Q d"]:
        """What the experts say at the learned tokens, weighted."""
        seen = None if mask is None else torch.cat([mask.new_ones(len(mask), self.num_queries), mask], dim=1)
        said = [_run(blocks, states, seen)[:, : self.num_queries] for blocks in self.experts]  # type: ignore[arg-type]
        return torch.einsum("xmqd,mqx->mqd", torch.stack(said), weights)


class KindLayers(nn.Module):
    """What belongs to one kind of medium.

    Args:
        in_dim: encoder width.
        out_dim: backbone width.
        dim: width of the experts.
        num_queries: learned tokens.
        num_experts: for the router.
    """

    def __init__(self, in_dim: int, out_dim: int, dim: int, num_queries: int, num_experts: int) -> None:
        super().__init__()
        self.project_in = nn.Sequential(nn.Linear(in_dim, dim), nn.LayerNorm(dim))
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.router = projector(dim, 4 * dim, num_experts)
        self.project_out = nn.Sequential(nn.Linear(dim, out_dim), nn.LayerNorm(out_dim))

    def enter(self, tokens: Float[Tensor, "M N E"]) -> Float[Tensor, "M T d"]:
        """Learned tokens, then the encoder's."""
        return torch.cat([self.queries.expand(len(tokens), -1, -1), self.project_in(tokens)], dim=1)

    def leave(self, states: Float[Tensor, "M Q d"]) -> Float[Tensor, "M Q D"]:
        """To the backbone's width."""
        return self.project_out(states)


def _run(
    blocks: nn.ModuleList, states: Float[Tensor, "M T d"], mask: Bool[Tensor, "M T"] | None
) -> Float[Tensor, "M T d"]:
    for block in blocks:
        states = block(states, mask)
    return states


def _sigmoid(logits: Float[Tensor, "M Q X"]) -> Float[Tensor, "M Q X"]:
    shares = logits.sigmoid()
    return shares / shares.sum(dim=-1, keepdim=True)


def _softmax(logits: Float[Tensor, "M Q X"]) -> Float[Tensor, "M Q X"]:
    return logits.softmax(dim=-1)


GATES = {"sigmoid": _sigmoid, "softmax": _softmax}
