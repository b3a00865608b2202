"""LoRA-MoE: a frozen linear learns through several LoRA experts, mixed per token by a gate."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank import _loramoe_names
from mmunify.experts.low_rank._balance import Balance
from mmunify.experts.low_rank._ffn import tune_blocks
from mmunify.experts.low_rank._first_pass import add_first_pass, hidden_dim
from mmunify.experts.low_rank._inject import (
    ThinProduct,
    check_numbers,
    check_rank,
    find_blocks,
    find_linears,
    globs_of,
    inject,
)
from mmunify.experts.low_rank._options import MixtureOptions, experts_per_layer
from mmunify.experts.low_rank._router import Router
from mmunify.experts.low_rank._routing import GatedLayer
from mmunify.parts import Tuner
from mmunify.registry import TUNERS

Losses = Sequence[tuple[float, Balance]]


class LoRAMoE(GatedLayer, ThinProduct):
    """The term scaling * sum_i w_i(x) B_i A_i x (UnifiedMLLM, arXiv 2408.02503, equations 3-5), experts stacked.

    `h = x A^T` with all A in one matrix, `h` times each expert's weight, `h B^T` with all B in one matrix: two
    products whatever the number of experts, and nothing as wide as d_out is kept for the backward.

    Args:
        in_dim: width of x.
        out_dim: width of the result.
        rank: R, of one expert.
        router: how the X experts are weighed.
        scaling: alpha / rank.
        dropout: of the experts' input, not the gate's.
        per_expert: a dropout mask per expert instead of one for all.
        losses: (weight, auxiliary loss) pairs.
        mask: the tokens that the losses count.
        title: name of the linear, for messages.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        router: Router,
        scaling: float,
        dropout: int | float = 0.0,
        per_expert: bool = False,
        losses: Losses = (),
        mask: str = "non_pad",
        title: str = "",
    ) -> None:
        super().__init__(router, losses, mask, title)
        self.num_experts, self.scaling, self.dropout, self.per_expert = router.num_experts, scaling, dropout, per_expert
        self.a = nn.Parameter(torch.empty(self.num_experts * rank, in_dim))
        self.b = nn.Parameter(torch.empty(out_dim, self.num_experts * rank))
        self.add_gate(in_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A and the gate as a linear's weight, B zero: the term starts as exactly nothing."""
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.reset_gate()
        nn.init.zeros_(self.b)

    def narrow(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows XR"]:
        """Scaling * w_i A_i dropout(x), all experts side by side; in the dtype of x, the gate in float32 at least."""
        states, weights = self._with_gate(x) if self._shares_a_product(x) else (self._project(x), self.route(x))
        scaled = (self.scaling * weights).to(states.dtype)
        return (states.unflatten(-1, (self.num_experts, -1)) * scaled.unsqueeze(-1)).flatten(-2)

    def _with_gate(self, x: Float[Tensor, "*rows d_in"]) -> tuple[Tensor, Tensor]:
        """A x and the weights from one product."""
        assert self.gate is not None
        states, logits = F.linear(x, torch.cat([self.a, self.gate])).split([len(self.a), self.num_experts], dim=-1)
        return states, self.weigh(logits)

    def _shares_a_product(self, x: Tensor) -> bool:
        """Whether experts and gate read the same numbers with the same precision."""
        router = self.router
        assert router is not None
        noisy = self.training and (self.dropout or router.jitter)
        exact = x.dtype == self.a.dtype and not torch.is_autocast_enabled(x.device.type)
        return self.gate is not None and router.reads == "layer" and exact and not noisy

    def _project(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows XR"]:
        """A_i of the dropped x, all experts side by side."""
        a = self.a.to(x.dtype)
        if self.per_expert and self.dropout and self.training:
            return torch.cat([F.linear(F.dropout(x, self.dropout), rows) for rows in a.chunk(self.num_experts)], dim=-1)
        return F.linear(F.dropout(x, self.dropout, self.training), a)


@TUNERS.register("lora_moe")
class LoRAMoETuner(Tuner):
    """LoRA-MoE on the linears that `match` names, one gate per linear (LoRAMoE, arXiv 2312.09979).

    The new parameters of a linear `x` are `x.low_rank.a` [X*R d_in], `x.low_rank.b` [d_out X*R] (expert i owns rows
    and columns i*R to (i+1)*R) and `x.low_rank.gate` [X d_in]; `x.weight` keeps its name. They are float32 where the
    weight has fewer bits. Whether anything learns is the stage's to say.

    With `options.site: ffn` it is MixLoRA (arXiv 2404.15159): `match` names blocks, the gate `block.low_rank.gate`
    reads the block's input, and every linear inside has its `a` and `b`. See `docs/guides/low_rank.md`.

    Args:
        match: one glob or several over clean module names ("*.mlp.*_proj"); a leading `!` excludes.
        rank: R, of one expert.
        num_experts: X, or one number per matched layer (MoLA).
        alpha: the term is multiplied by alpha / rank.
        dropout: of the experts' input, while training.
        gate: "softmax" over all experts, "sigmoid" of each, the "top_k" largest of the softmax, the fewest that make
            "top_p", the largest alone ("switch"), or the expert whose number is the token's task ("task").
        top_k: experts per token, for gate "top_k".
        balance: an auxiliary loss: "cv_squared" (Shazeer et al.), "localized_balance" (LoRAMoE; needs task ids),
            "switch", "z", "entropy", or "none"; or several, as name: weight.
        balance_weight: multiplies the loss when `balance` is a name; 0 switches it off.
        options: see `MixtureOptions`.

    Raises:
        UserError: a number out of range, or an unknown name.
    """

    def __init__(
        self,
        match: str | Sequence[str],
        rank: int = 4,
        num_experts: int | Sequence[int] = 8,
        alpha: int | float = 32,
        dropout: int | float = 0.0,
        gate: Literal["softmax", "sigmoid", "top_k", "top_p", "switch", "task"] = "softmax",
        top_k: int = 2,
        balance: Literal["none", "cv_squared", "localized_balance", "switch", "z", "entropy"]
        | Mapping[str, int | float] = "none",
        balance_weight: int | float = 0.0,
        options: Mapping[str, Any] = {},
    ) -> None:
        self.options = MixtureOptions.of(options)
        self.counts = num_experts if isinstance(num_experts, int) else tuple(num_experts)
        counts = (self.counts,) if isinstance(self.counts, int) else self.counts
        for count in counts:
            check_numbers("LoRAMoETuner", rank, alpha, dropout, num_experts=count)
        self.match, self.rank, self.dropout, self.gate, self.top_k = match, rank, dropout, gate, top_k
        self.scaling = alpha / (math.sqrt(rank) if self.options.rslora else rank)
        self.balance = dict(balance) if isinstance(balance, Mapping) else {balance: balance_weight}
        _check_weights(self.balance, gate)
        for count in counts:
            self.options.router(gate, count, top_k)
            self.options.losses(self.balance, count)

    def apply(self, module: nn.Module) -> list[str]:
        """Wrap in place.

        Returns:
            Names of the linears, or of the blocks.

        Raises:
            UserError: a glob without a linear, a rank above a matrix, a linear that has a term already, a list of
                numbers of experts that doesn't fit the layers.
        """
        reads_hidden = self.options.gate_input == "hidden" and self.gate != "task"
        width = hidden_dim(module) if reads_hidden else 0
        find = find_blocks if self.options.site == "ffn" else find_linears
        names = list(find(module, globs_of(self.match), "LoRAMoETuner"))
        counts = experts_per_layer("LoRAMoETuner", names, self.counts)
        routers = {name: self.options.router(self.gate, counts[name], self.top_k, width) for name in names}
        if self.options.site == "ffn":
            tune_blocks(module, self.match, partial(self._gated, routers), self.rank, self.scaling, self.dropout)
        else:
            inject(module, self.match, partial(self._make, routers), "LoRAMoETuner")
        if reads_hidden:
            add_first_pass(module)
        return names

    def _make(self, routers: Mapping[str, Router], name: str, linear: nn.Linear) -> LoRAMoE:
        check_rank(name, linear, self.rank, "LoRAMoETuner")
        router = routers[name]
        return LoRAMoE(
            linear.in_features,
            linear.out_features,
            self.rank,
            router,
            self.scaling,
            self.dropout,
            self.options.dropout_masks == "per_expert",
            self.options.losses(self.balance, router.num_experts),
            self.options.mask,
            name,
        )

    def _gated(self, routers: Mapping[str, Router], name: str) -> GatedLayer:
        """The gate of a block."""
        router = routers[name]
        return GatedLayer(router, self.options.losses(self.balance, router.num_experts), self.options.mask, name)

    def read(self, module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
        """Load a LoRAMoE checkpoint (`lora_A{i}`, `lora_B{i}`, `lora_route`) into a tuned module.

        Raises:
            UserError: names or shapes that don't fit, with the module and the numbers.
        """
        return _loramoe_names.read(module, state)

    def written(self, module: nn.Module, prefix: str = "base_model.model.") -> dict[str, Tensor]:
        """The mixtures of `module` under LoRAMoE's names."""
        return _loramoe_names.written(module, prefix)


def _check_weights(balance: Mapping[str, int | float], gate: str) -> None:
    """Negative weights are for "entropy" alone; a gate that learns nothing has no loss."""
    for name, weight in balance.items():
        if weight < 0 and name != "entropy":
            raise UserError(f"LoRAMoETuner: balance_weight must be at least 0, got {weight}")
        if weight and name != "none" and gate == "task":
            raise UserError(f"LoRAMoETuner: gate task learns nothing, so balance must be none, got {name}")
