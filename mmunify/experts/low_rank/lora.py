"""LoRA: a frozen linear learns through a product of two thin matrices."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.experts.low_rank._inject import check_numbers, check_rank, inject
from mmunify.parts import Tuner
from mmunify.registry import TUNERS


class LoRA(nn.Module):
    """The term (alpha / rank) B A x (Hu et al., arXiv 2106.09685).

    Args:
        in_dim: width of x.
        out_dim: width of the result.
        rank: R.
        scaling: alpha / rank, or alpha / sqrt(rank).
        dropout: of x, while training.
    """

    def __init__(self, in_dim: int, out_dim: int, rank: int, scaling: float, dropout: int | float = 0.0) -> None:
        super().__init__()
        self.scaling, self.dropout = scaling, dropout
        self.a = nn.Parameter(torch.empty(rank, in_dim))
        self.b = nn.Parameter(torch.empty(out_dim, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A as a linear's weight, B zero: the term starts as exactly nothing."""
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        nn.init.zeros_(self.b)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """Scaling * B A dropout(x); the products run in the dtype of x."""
        states = F.linear(F.dropout(x, self.dropout, self.training), self.a.to(x.dtype))
        states = self.scaling * states  # R numbers per token instead of d_out
        return F.linear(states, self.b.to(states.dtype))


@TUNERS.register("lora")
class LoRATuner(Tuner):
    """LoRA on the linears that `match` names (Hu et al., arXiv 2106.09685).

    The new parameters of a linear `x` are `x.low_rank.a` [R d_in] and `x.low_rank.b` [d_out R]; `x.weight` keeps its
    name. They are float32 where the weight has fewer bits. Whether anything learns is the stage's to say.

    Args:
        match: one glob or several over clean module names ("*.self_attn.*_proj"); a leading `!` excludes.
        rank: R.
        alpha: the term is multiplied by alpha / rank.
        dropout: of the term's input, while training.
        rslora: multiply by alpha / sqrt(rank) instead (Kalajdzievski, arXiv 2312.03732).

    Raises:
        UserError: a number out of range.
    """

    def __init__(
        self,
        match: str | Sequence[str],
        rank: int = 8,
        alpha: int | float = 16,
        dropout: int | float = 0.0,
        rslora: bool = False,
    ) -> None:
        check_numbers("LoRATuner", rank, alpha, dropout)
        self.match, self.rank, self.dropout = match, rank, dropout
        self.scaling = alpha / (math.sqrt(rank) if rslora else rank)

    def apply(self, module: nn.Module) -> list[str]:
        """Wrap in place.

        Returns:
            Names of the linears.

        Raises:
            UserError: a glob without a linear, a rank above a matrix, a linear that has a term already.
        """
        return inject(module, self.match, self._make, "LoRATuner")

    def _make(self, name: str, linear: nn.Linear) -> LoRA:
        check_rank(name, linear, self.rank, "LoRATuner")
        return LoRA(linear.in_features, linear.out_features, self.rank, self.scaling, self.dropout)
