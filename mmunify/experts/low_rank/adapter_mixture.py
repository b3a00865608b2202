"""A mixture of adapters: bottlenecks beside a block, weighed per channel by the task of every token."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._inject import check_numbers, find_blocks, globs_of, is_off, make_beside
from mmunify.experts.low_rank._router import token_ids
from mmunify.experts.low_rank._routing import GatedLayer
from mmunify.parts import Tuner
from mmunify.registry import TUNERS


class AdapterMixture(GatedLayer):
    """The term sum_k G_k[task] * H_k(x), with H_k(x) = s_k (U_k relu(D_k x + d_k) + u_k) (LION, arXiv 2311.11860).

    The weights G are free numbers per adapter, task and channel, without a softmax. They start as one adapter per
    task (task t: adapter t mod K), so that adapters trained alone can be put side by side.

    Args:
        dim: width D of x and of the result.
        rank: R, width of a bottleneck.
        num_adapters: K.
        num_tasks: rows of the weights; with one task no token needs to tell its own.
        title: name of the block, for messages.
    """

    def __init__(self, dim: int, rank: int, num_adapters: int, num_tasks: int, title: str = "") -> None:
        super().__init__(title=title)
        self.num_tasks = num_tasks
        self.down = nn.Parameter(torch.empty(num_adapters, rank, dim))
        self.down_bias = nn.Parameter(torch.zeros(num_adapters, rank))
        self.up = nn.Parameter(torch.zeros(num_adapters, dim, rank))
        self.up_bias = nn.Parameter(torch.zeros(num_adapters, dim))
        self.scale = nn.Parameter(torch.ones(num_adapters))
        self.ratio = nn.Parameter(torch.zeros(num_adapters, num_tasks, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The first products as linears' weights, the second ones zero: the term starts as exactly nothing."""
        for matrix in self.down:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
        for zeros in (self.down_bias, self.up, self.up_bias):
            nn.init.zeros_(zeros)
        nn.init.ones_(self.scale)
        owner = torch.arange(self.num_tasks, device=self.ratio.device) % len(self.ratio)
        same = torch.arange(len(self.ratio), device=self.ratio.device)[:, None] == owner
        with torch.no_grad():
            self.ratio.copy_(same[..., None].expand_as(self.ratio))

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """The mixture's term, in the dtype of x."""
        ids = x.new_zeros(x.shape[:-1], dtype=torch.long)
        if self.num_tasks > 1:
            ids = token_ids("task", x, self.num_tasks, self.title)
        self.record(self.ratio.detach().mean(-1).T[ids])
        states = torch.einsum("...d,krd->...kr", x, self.down.to(x.dtype)) + self.down_bias.to(x.dtype)
        made = torch.einsum("...kr,kdr->...kd", states.relu(), self.up.to(x.dtype)) + self.up_bias.to(x.dtype)
        weights = (self.scale[:, None, None] * self.ratio).to(x.dtype)
        return (weights.movedim(0, 1)[ids] * made).sum(-2)


@TUNERS.register("adapter_mixture")
class AdapterMixtureTuner(Tuner):
    """LION's mixture of adapters (arXiv 2311.11860) on the blocks that `match` names.

    A block's result y(x) becomes y(x) + sum_k G_k[task] * H_k(x). LION puts it on T5's feed-forward layers, whose
    input is the residual stream ("*.layer.[12]" of a T5 encoder or decoder, where the layer's class is T5LayerFF); on
    "*.mlp" of a Llama it reads the normalised input. New parameters are `block.low_rank.{down, down_bias, up,
    up_bias, scale, ratio}`.

    LION learns adapters one task group at a time, then all with the router: stages whose `learns` names
    `*.low_rank.*` or `*.low_rank.ratio`. Tokens of several tasks may share a batch.

    Args:
        match: one glob or several over clean module names; a leading `!` excludes.
        rank: width of the bottlenecks.
        num_adapters: K; 1 with num_tasks 1 is a plain adapter.
        num_tasks: rows of the task table that the weights know.

    Raises:
        UserError: a number out of range.
    """

    def __init__(self, match: str | Sequence[str], rank: int = 64, num_adapters: int = 2, num_tasks: int = 2) -> None:
        check_numbers("AdapterMixtureTuner", rank, 1, 0, num_adapters=num_adapters, num_tasks=num_tasks)
        self.match, self.rank, self.num_adapters, self.num_tasks = match, rank, num_adapters, num_tasks

    def apply(self, module: nn.Module) -> list[str]:
        """Put a mixture beside every block.

        Returns:
            Names of the blocks.

        Raises:
            UserError: a glob without a block, a block that has a term already, or whose input and result differ in
                width.
        """
        blocks = find_blocks(module, globs_of(self.match), "AdapterMixtureTuner")
        made = {name: self._make(name, block) for name, block in blocks.items()}
        for name, block in blocks.items():
            block.low_rank = made[name]
            block.register_forward_hook(_add_term, with_kwargs=True)
        return list(blocks)

    def _make(self, name: str, block: nn.Module) -> nn.Module:
        linears = [child for child in block.modules() if isinstance(child, nn.Linear)]
        first, last = linears[0], linears[-1]
        if first.in_features != last.out_features:
            raise UserError(
                f"AdapterMixtureTuner: {name} reads {first.in_features} numbers and gives {last.out_features}; match "
                "blocks whose input and result have one width"
            )
        sizes = (first.in_features, self.rank, self.num_adapters, self.num_tasks)
        return make_beside(first, lambda linear: AdapterMixture(*sizes, title=name))


def _add_term(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    term: Any = block.low_rank
    if is_off(term):
        return None
    x = args[0] if args else next(iter(kwargs.values()))
    if isinstance(output, tuple):
        return (output[0] + term(x), *output[1:])
    return output + term(x)
