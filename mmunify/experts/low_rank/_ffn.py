"""LoRA-MoE on whole blocks (MixLoRA, arXiv 2404.15159): one gate per feed-forward block, experts in all its linears.

    y = FFN(x) + sum_i w_i (FFN_i(x) - FFN(x))

where FFN_i is the frozen block whose linears have the LoRA terms of expert i. With weights that sum to one this is
MixLoRA's sum_i w_i FFN_i(x); with any weights, B = 0 gives the frozen block exactly.

The block's own forward runs once, on its input repeated along a new first dimension (the frozen block and the X
experts). A linear that reads the repeated input computes W x once; the block's last linear mixes what it reads before
it multiplies. So every frozen matrix is used once per token, however many experts there are.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._inject import (
    LowRankLinear,
    attach,
    check_plain,
    check_rank,
    find_blocks,
    globs_of,
    is_off,
    make_beside,
)
from mmunify.experts.low_rank._routing import GatedLayer


class ExpertTerms(nn.Module):
    """A and B of all experts in one linear of a block.

    Args:
        in_dim: width of x.
        out_dim: width of the result.
        rank: R, of one expert.
        num_experts: X.
        scaling: alpha / rank.
        dropout: of the experts' input, while training.
        closes: whether the linear's result is the block's, so that experts can be mixed before W.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        num_experts: int,
        scaling: float,
        dropout: int | float = 0.0,
        closes: bool = False,
    ) -> None:
        super().__init__()
        self.num_experts, self.scaling, self.dropout = num_experts, scaling, dropout
        self.closes, self.off = closes, False
        self.a = nn.Parameter(torch.empty(num_experts * rank, in_dim))
        self.b = nn.Parameter(torch.empty(out_dim, num_experts * rank))
        self.weights: Tensor | None = None
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        nn.init.zeros_(self.b)

    def of_one_input(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "X1 n d_out"]:
        """Terms of all experts for the same x, after zeros for the frozen block."""
        states = F.linear(F.dropout(x, self.dropout, self.training), self.a.to(x.dtype))
        return self._widen(states.unflatten(-1, (self.num_experts, -1)).transpose(0, 1))

    def of_own_inputs(self, x: Float[Tensor, "X n d_in"]) -> Float[Tensor, "X1 n d_out"]:
        """Terms of all experts, each for its own x, after zeros for the frozen block."""
        return self._widen(self._narrow(x))

    def mixed(self, x: Float[Tensor, "X n d_in"], weights: Float[Tensor, "n X"]) -> Float[Tensor, "n d_out"]:
        """The weighted sum of the experts' terms, each for its own x."""
        states = self._narrow(x) * (self.scaling * weights.T.unsqueeze(-1)).to(x.dtype)
        states = states.transpose(0, 1).flatten(1)
        return F.linear(states, self.b.to(states.dtype))

    def _narrow(self, x: Float[Tensor, "X n d_in"]) -> Float[Tensor, "X n R"]:
        kept = x
        if self.dropout and self.training:
            kept = x * F.dropout(x.new_ones(x.shape[1:]), self.dropout)
        return kept @ self.a.unflatten(0, (self.num_experts, -1)).transpose(1, 2).to(x.dtype)

    def _widen(self, states: Float[Tensor, "X n R"]) -> Float[Tensor, "X1 n d_out"]:
        b = self.b.unflatten(1, (self.num_experts, -1)).permute(1, 2, 0)
        first = (0, 0, 0, 0, 1, 0)
        return F.pad(self.scaling * states, first) @ F.pad(b, first).to(states.dtype)

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without memory: tensors inside a graph can't be copied.
        return {**self.__dict__, "weights": None}


class ExpertLinear(LowRankLinear):
    """A linear of a block whose input has one more dimension in front: the frozen block, then the experts."""

    def forward(self, input: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*outs d_out"]:
        """[X + 1 *rows d_in] -> [X + 1 *rows d_out], or [*rows d_out] from the linear that closes the block."""
        terms: ExpertTerms = self.low_rank  # type: ignore[assignment]
        if is_off(terms):
            return nn.Linear.forward(self, input)
        if input.shape[0] != terms.num_experts + 1:
            raise UserError(
                f"a linear {self.in_features} -> {self.out_features} of a block with {terms.num_experts} experts got "
                f"{tuple(input.shape)} instead of [{terms.num_experts + 1} ...]: the block reshapes what it computes; "
                "use options.site: linear"
            )
        rows = input.shape[1:-1]
        if input.stride(0) == 0:  # the block's own input, repeated
            base, terms_of_all = nn.Linear.forward(self, input[0]), terms.of_one_input(input[0].flatten(0, -2))
            return base + terms_of_all.unflatten(1, rows)
        if terms.closes and terms.weights is not None:
            frozen, own = input[0], input[1:]
            weights = terms.weights
            moved = (weights.movedim(-1, 0).unsqueeze(-1).to(input.dtype) * (own - frozen)).sum(0)
            term = terms.mixed(own.flatten(1, -2), weights.flatten(0, -2))
            return nn.Linear.forward(self, frozen + moved) + term.unflatten(0, rows)
        return nn.Linear.forward(self, input) + terms.of_own_inputs(input[1:].flatten(1, -2)).unflatten(1, rows)


def tune_blocks(
    module: nn.Module,
    match: str | Sequence[str],
    make_gate: Callable[[str], GatedLayer],
    rank: int,
    scaling: float,
    dropout: int | float,
) -> list[str]:
    """Give every block that `match` names a gate, and its linears experts; all is checked before anything changes.

    Args:
        module: searched with all that is below it.
        match: globs over clean names of modules with linears inside.
        make_gate: name of a block -> its gate, which has no matrix yet.
        rank: R, of one expert.
        scaling: alpha / rank.
        dropout: of the experts' input, while training.

    Returns:
        The names of the blocks.

    Raises:
        UserError: a glob without a block, a block inside another one, a linear that can't be wrapped, a rank above a
            matrix, a block that reads more than one input.
    """
    blocks = find_blocks(module, globs_of(match), "LoRAMoETuner")
    plans = {name: _plan(name, block, make_gate(name), rank, scaling, dropout) for name, block in blocks.items()}
    owners: dict[int, str] = {}
    for name, (_, terms) in plans.items():
        for linear in terms:
            other = owners.setdefault(id(linear), name)
            if other != name:
                raise UserError(f"LoRAMoETuner: {other} and {name} hold the same linear; match one of the two blocks")
    for name, (gate, terms) in plans.items():
        block = blocks[name]
        block.low_rank = gate
        for linear, term in terms.items():
            attach(linear, term, ExpertLinear)
        block.register_forward_pre_hook(_repeat)
        block.register_forward_hook(_mix)
    return list(blocks)


def _plan(
    name: str, block: nn.Module, gate: GatedLayer, rank: int, scaling: float, dropout: int | float
) -> tuple[GatedLayer, dict[nn.Linear, ExpertTerms]]:
    """The gate and the terms of a block, beside their linears but not attached."""
    linears = {f"{name}.{inner}": m for inner, m in block.named_modules() if isinstance(m, nn.Linear)}
    for full, linear in linears.items():
        check_plain(full, linear, "LoRAMoETuner")
        check_rank(full, linear, rank, "LoRAMoETuner")
    first, closing = next(iter(linears.values())), _closing(name, block, next(iter(linears.values())))

    def with_matrix(linear: nn.Linear) -> GatedLayer:
        gate.add_gate(linear.in_features)
        gate.reset_gate()
        return gate

    def make(linear: nn.Linear) -> ExpertTerms:
        assert gate.router is not None
        sizes = (linear.in_features, linear.out_features, rank, gate.router.num_experts)
        return ExpertTerms(*sizes, scaling, dropout, linear is closing)

    return make_beside(first, with_matrix), {linear: make_beside(linear, make) for linear in linears.values()}  # type: ignore[return-value]


def _closing(name: str, block: nn.Module, first: nn.Linear) -> nn.Linear | None:
    """The linear whose result is the block's, found by running the block on one token of zeros."""
    seen: list[tuple[Any, Any]] = []
    keep = [
        linear.register_forward_hook(lambda m, _, out: seen.append((m, out)))
        for linear in block.modules()
        if isinstance(linear, nn.Linear)
    ]
    modes = [(m, m.training) for m in block.modules()]
    token = torch.zeros(1, 1, first.in_features, dtype=first.weight.dtype, device=first.weight.device)
    try:
        with torch.no_grad():
            result = block.eval()(token)
            return next((linear for linear, out in seen if out is result), None)
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"LoRAMoETuner: {name} ({type(block).__name__}) doesn't run on one input of width {first.in_features}, so "
            f"its experts can't be mixed as a block ({error}); use options.site: linear"
        ) from error
    finally:
        for handle in keep:
            handle.remove()
        for m, training in modes:
            m.training = training


def _repeat(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Before the block: weigh the experts, and repeat the input for them."""
    gate: GatedLayer = block.low_rank  # type: ignore[assignment]
    if is_off(gate):
        return None
    x = args[0]
    weights = gate.route(x)
    _hand(block, weights)
    return (x.unsqueeze(0).expand(weights.shape[-1] + 1, *x.shape), *args[1:])


def _mix(block: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """After the block: mix, unless its last linear did."""
    if is_off(block.low_rank):  # type: ignore[arg-type]
        return None
    weights = _hand(block, None)
    if output.dim() < args[0].dim():
        return None
    assert weights is not None
    frozen, own = output[0], output[1:]
    return frozen + (weights.movedim(-1, 0).unsqueeze(-1).to(output.dtype) * (own - frozen)).sum(0)


def _hand(block: nn.Module, weights: Tensor | None) -> Tensor | None:
    """Give the weights to all terms of the block; returns those that they had."""
    before = None
    for module in block.modules():
        if isinstance(module, ExpertTerms):
            before, module.weights = module.weights, weights
    return before
