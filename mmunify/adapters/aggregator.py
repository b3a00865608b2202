"""Tokens that read the encoder's earlier layers."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmunify.errors import DataError, UserError
from mmunify.layers.bert import BertBlock
from mmunify.layers.projector import projector
from mmunify.parts import Adapter, Context
from mmunify.registry import ADAPTERS
from mmunify.types import Embeds, Features, Layout


@ADAPTERS.register("aggregator")
class AggregatorAdapter(Adapter):
    """The vision aggregator of LION (https://arxiv.org/abs/2311.11860): one slot per token, details from below.

    The tokens go through one BERT block per entry of `layers`; each block reads that layer's states by
    cross-attention. Then a norm and two linears. The blocks' output linears start at zero, so that training starts
    from the normed tokens. The encoder has to be asked for the same layers (`layers:` of its node), and its tokens
    are the block that LION starts from.

    Args:
        in_dim: encoder width E (given by the composer).
        out_dim: backbone width D (given by the composer).
        layers: what the blocks read, in this order, as the encoder counts its layers (LION: blocks 28 and 18 of a
            ViT-g whose tokens are those of block 38, counted from 0).
        num_heads: of every attention; None = one per 64 numbers of E (LION: 16 of 88).
        hidden_dim: inside the blocks' feed-forward (LION: 3072); None = 4 E.
        project_dim: width between the two linears; None = 4 E.
        dropout: of states and attention.

    Raises:
        UserError: no layers.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        layers: list[int],
        num_heads: int | None = None,
        hidden_dim: int | None = None,
        project_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not layers:
            raise UserError("an aggregator reads at least one layer of its encoder; got layers=[]")
        heads = num_heads or max(1, in_dim // 64)
        self.layers = list(layers)
        self.needs = frozenset(f"layers:{index}" for index in layers)
        self.blocks = nn.ModuleList(BertBlock(in_dim, in_dim, heads, hidden_dim, dropout) for _ in layers)
        self.norm = nn.LayerNorm(in_dim)
        self.project = projector(in_dim, project_dim or 4 * in_dim, out_dim)
        self.blocks.apply(_start_at_zero)

    def layout(self, layout: Layout) -> Layout:
        """Slots and grid stay as they are."""
        return layout

    def forward(self, features: Features, context: Context) -> Embeds:
        """(M, N, E) and layers (M, N', E) -> (M, N, D).

        Raises:
            DataError: the features lack a layer.
        """
        states, mask = features.tokens, features.mask
        for block, memory in zip(self.blocks, self._memories(features), strict=True):
            states = block(states, memory, _mask_of(memory, mask), mask)
        return Embeds(tokens=self.project(self.norm(states)), mask=mask, num_frames=features.num_frames)

    def _memories(self, features: Features) -> Sequence[Tensor]:
        absent = [index for index in self.layers if index not in features.layers]
        if absent:
            raise DataError(
                f"the aggregator reads layers {self.layers} and its features hold {sorted(features.layers)}: "
                f"write `layers: {self.layers}` into the encoder's node"
            )
        return [features.layers[index] for index in self.layers]


def _mask_of(memory: Float[Tensor, "M n E"], mask: Bool[Tensor, "M N"] | None) -> Bool[Tensor, "M n"] | None:
    """The tokens' mask, where the layer has the same tokens (it may hold a class token more)."""
    return mask if mask is not None and mask.shape[1] == memory.shape[1] else None


def _start_at_zero(module: nn.Module) -> None:
    if isinstance(module, BertBlock) and module.cross is not None:
        for linear in (module.attention.output, module.cross.output, module.feed_forward.reduce):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
