"""LoRA-MoE: a frozen linear learns through several LoRA experts, mixed per token by a gate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import Balance, make_balance
from mmunify.experts.low_rank._gates import Gate, gate_logits, make_gate
from mmunify.experts.low_rank._inject import check_numbers, check_rank, inject
from mmunify.experts.low_rank._routing import GatedLayer
from mmunify.parts import Tuner
from mmunify.registry import TUNERS, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOptions:
    """Finer settings of a mixture.

    Attributes:
        temperature: divides the gate's logits.
        renormalize: whether the weights that "top_k" keeps sum to one.
        rslora: multiply by alpha / sqrt(rank) instead of alpha / rank.
        delta: how far "localized" pulls the two halves of the experts apart.
        tasks: task indices whose documents belong to the first half, for "localized".
    """

    temperature: int | float = 1.0
    renormalize: bool = True
    rslora: bool = False
    delta: int | float = 0.1
    tasks: Sequence[int] = (1,)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "MixtureOptions":
        """From a recipe's mapping.

        Raises:
            UserError: an option that doesn't exist.
        """
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise UserError(
                    f"LoRAMoETuner has no option {key!r}{did_you_mean(key, known)} Known: {', '.join(known)}"
                )
        return cls(**given)


class LoRAMoE(GatedLayer):
    """The term scaling * sum_i w_i(x) B_i A_i x (UnifiedMLLM, arXiv 2408.02503, equations 3-5), experts stacked.

    `h = x A^T` with all A in one matrix, `h` times each expert's weight, `h B^T` with all B in one matrix: two
    products whatever the number of experts, and nothing as wide as d_out is kept for the backward.

    Args:
        in_dim: width of x.
        out_dim: width of the result.
        rank: R, of one expert.
        num_experts: X.
        scaling: alpha / rank.
        dropout: of the experts' input, not the gate's; one mask for all experts.
        gate: logits -> weights.
        balance: loss of the weights; None = none.
        balance_weight: multiplies the loss.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        num_experts: int,
        scaling: float,
        gate: Gate,
        dropout: int | float = 0.0,
        balance: Balance | None = None,
        balance_weight: int | float = 0.0,
    ) -> None:
        super().__init__(balance, balance_weight)
        self.num_experts, self.scaling, self.dropout, self.weigh = num_experts, scaling, dropout, gate
        self.a = nn.Parameter(torch.empty(num_experts * rank, in_dim))
        self.b = nn.Parameter(torch.empty(out_dim, num_experts * rank))
        self.gate = nn.Parameter(torch.empty(num_experts, in_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A and the gate as a linear's weight, B zero: the term starts as exactly nothing."""
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.gate, a=math.sqrt(5))
        nn.init.zeros_(self.b)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """The mixture's term; the products run in the dtype of x, the gate in float32 at least."""
        weights = self.route(x)
        states = F.linear(F.dropout(x, self.dropout, self.training), self.a.to(x.dtype))
        scaled = (self.scaling * weights).to(states.dtype)
        mixed = states.unflatten(-1, (self.num_experts, -1)) * scaled.unsqueeze(-1)
        return F.linear(mixed.flatten(-2), self.b.to(mixed.dtype))

    def route(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows X"]:
        """Weight of every expert for every token, remembered for losses and telemetry."""
        weights = self.weigh(gate_logits(x, self.gate))
        self.record(weights)
        return weights


@TUNERS.register("lora_moe")
class LoRAMoETuner(Tuner):
    """LoRA-MoE on the linears that `match` names, one gate per linear (LoRAMoE, arXiv 2312.09979).

    The new parameters of a linear `x` are `x.low_rank.a` [X*R d_in], `x.low_rank.b` [d_out X*R] (expert i owns rows
    and columns i*R to (i+1)*R) and `x.low_rank.gate` [X d_in]; `x.weight` keeps its name. They are float32 where the
    weight has fewer bits. Whether anything learns is the stage's to say.

    Dropout draws one mask for all experts; the code of LoRAMoE draws one per expert, which forbids stacking.

    Args:
        match: one glob or several over clean module names ("*.mlp.*_proj"); a leading `!` excludes.
        rank: R, of one expert.
        num_experts: X.
        alpha: the term is multiplied by alpha / rank.
        dropout: of the experts' input, while training.
        gate: "softmax" over all experts, "sigmoid" of each, or the "top_k" largest of the softmax.
        top_k: experts per token, for gate "top_k".
        balance: "cv_squared" (Shazeer et al.), "localized" (LoRAMoE; needs task ids), or "none".
        balance_weight: multiplies the balance loss; 0 switches it off.
        options: see `MixtureOptions`.

    Raises:
        UserError: a number out of range, or an unknown name.
    """

    def __init__(
        self,
        match: str | Sequence[str],
        rank: int = 4,
        num_experts: int = 8,
        alpha: int | float = 32,
        dropout: int | float = 0.0,
        gate: Literal["softmax", "sigmoid", "top_k"] = "softmax",
        top_k: int = 2,
        balance: Literal["none", "cv_squared", "localized"] = "none",
        balance_weight: int | float = 0.0,
        options: Mapping[str, Any] = {},
    ) -> None:
        check_numbers("LoRAMoETuner", rank, alpha, dropout, num_experts=num_experts)
        if balance_weight < 0:
            raise UserError(f"LoRAMoETuner: balance_weight must be at least 0, got {balance_weight}")
        more = MixtureOptions.of(options)
        self.match, self.rank, self.num_experts, self.dropout = match, rank, num_experts, dropout
        self.scaling = alpha / (math.sqrt(rank) if more.rslora else rank)
        self.gate = make_gate(gate, num_experts, top_k, more.temperature, more.renormalize)
        self.balance, self.balance_weight = make_balance(balance, num_experts, more.delta, more.tasks), balance_weight

    def apply(self, module: nn.Module) -> list[str]:
        """Wrap in place.

        Returns:
            Names of the linears.

        Raises:
            UserError: a glob without a linear, a rank above a matrix, a linear that has a term already.
        """
        return inject(module, self.match, self._make, "LoRAMoETuner")

    def _make(self, name: str, linear: nn.Linear) -> LoRAMoE:
        check_rank(name, linear, self.rank, "LoRAMoETuner")
        return LoRAMoE(
            linear.in_features,
            linear.out_features,
            self.rank,
            self.num_experts,
            self.scaling,
            self.gate,
            self.dropout,
            self.balance,
            self.balance_weight,
        )
