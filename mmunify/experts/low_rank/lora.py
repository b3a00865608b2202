"""LoRA: a frozen linear learns through a product of two thin matrices."""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank import _merging
from mmunify.experts.low_rank._foreign_names import check_shape, match_names
from mmunify.experts.low_rank._inject import (
    LowRankLinear,
    ThinProduct,
    check_numbers,
    check_rank,
    find_linears,
    globs_of,
    inject,
    named_modules,
)
from mmunify.experts.low_rank._peft_format import Adapter, AdapterTensors, read_adapter, scaling_of, write_adapter
from mmunify.parts import Tuner
from mmunify.registry import TUNERS


class LoRA(ThinProduct):
    """The term (alpha / rank) B A x (Hu et al., arXiv 2106.09685).

    Args:
        in_dim: width of x.
        out_dim: width of the result.
        rank: R.
        scaling: alpha / rank, or alpha / sqrt(rank).
        dropout: of x, while training.
        rslora: which of the two; for PEFT's files.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        scaling: float,
        dropout: int | float = 0.0,
        rslora: bool = False,
    ) -> None:
        super().__init__()
        self.scaling, self.dropout, self.rslora, self.off, self.merged = scaling, dropout, rslora, False, False
        self.a = nn.Parameter(torch.empty(rank, in_dim))
        self.b = nn.Parameter(torch.empty(out_dim, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A as a linear's weight, B zero: the term starts as exactly nothing."""
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        nn.init.zeros_(self.b)

    def narrow(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows R"]:
        """Scaling * A dropout(x): scaled where there are R numbers per token instead of d_out."""
        return self.scaling * F.linear(F.dropout(x, self.dropout, self.training), self.a.to(x.dtype))

    def weight_change(self) -> Float[Tensor, "d_out d_in"]:
        """What the term adds to the linear's weight."""
        return self.scaling * self.b @ self.a


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
        path: a folder or hub repository with a LoRA adapter in PEFT's format, to start from. Of its linears, those
            that `match` names get a term; rank, alpha and rslora are the adapter's.

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
        path: str | None = None,
    ) -> None:
        check_numbers("LoRATuner", rank, alpha, dropout)
        self.match, self.rank, self.dropout, self.rslora, self.path = match, rank, dropout, rslora, path
        self.scaling = scaling_of(alpha, rank, rslora)

    def apply(self, module: nn.Module) -> list[str]:
        """Wrap in place.

        Returns:
            Names of the linears.

        Raises:
            UserError: a glob without a linear, a rank above a matrix, a linear that has a term already, or an adapter
                that doesn't fit.
        """
        if self.path is None:
            return inject(module, self.match, self._make, "LoRATuner")
        adapter = read_adapter(self.path)
        tensors = self._placed(module, adapter)
        return inject(module, list(tensors), partial(self._make_from, adapter, tensors), "LoRATuner")

    def save(self, module: nn.Module, folder: str | Path, prefix: str = "", base: str | None = None) -> Path:
        """Write the LoRA terms of `module` as a PEFT adapter.

        Args:
            module: tuned by this tuner or by others like it.
            folder: where to; made if missing.
            prefix: in front of every name: "model." when PEFT is to put the adapter on the causal model around it.
            base: the frozen model's path, for PEFT's record.

        Raises:
            UserError: there is no LoRA term.
        """
        modules = named_modules(module)
        terms = {
            name: child.low_rank
            for name, child in modules.items()
            if isinstance(child, LowRankLinear) and isinstance(child.low_rank, LoRA)
        }
        if not terms:
            raise UserError(f"LoRATuner: {type(module).__name__} has no LoRA term to save")
        rslora = all(term.rslora for term in terms.values())
        linears = {name: AdapterTensors(a=t.a, b=t.b, alpha=_alpha(t, rslora)) for name, t in terms.items()}
        adapter = Adapter(linears=linears, rslora=rslora, dropout=float(self.dropout), base=base)
        return write_adapter(folder, adapter, _targets(modules, terms), prefix)

    def merge(self, module: nn.Module) -> list[str]:
        """Add the terms to the weights, for inference without their cost; see `unmerge`.

        Raises:
            UserError: a term that can't be merged.
        """
        return _merging.merge(module)

    def unmerge(self, module: nn.Module) -> list[str]:
        """Take merged terms out of the weights again."""
        return _merging.unmerge(module)

    def _make(self, name: str, linear: nn.Linear) -> LoRA:
        check_rank(name, linear, self.rank, "LoRATuner")
        return LoRA(linear.in_features, linear.out_features, self.rank, self.scaling, self.dropout, self.rslora)

    def _placed(self, module: nn.Module, adapter: Adapter) -> dict[str, AdapterTensors]:
        """Our name -> tensors, of the adapter's linears that `match` names."""
        title = f"adapter {self.path}"
        every = [name for name, child in named_modules(module).items() if isinstance(child, nn.Linear)]
        places = match_names(title, list(adapter.linears), every)
        chosen = find_linears(module, globs_of(self.match), "LoRATuner")
        found = {ours: adapter.linears[theirs] for theirs, ours in places.items() if ours in chosen}
        if not found:
            raise UserError(f"LoRATuner: match {self.match!r} names none of the {len(places)} linears of {title}")
        return found

    def _make_from(self, adapter: Adapter, tensors: dict[str, AdapterTensors], name: str, linear: nn.Linear) -> LoRA:
        one, title = tensors[name], f"adapter {self.path}"
        rank = len(one.a)
        check_shape(title, f"lora_A of {name}", one.a, (rank, linear.in_features))
        check_shape(title, f"lora_B of {name}", one.b, (linear.out_features, rank))
        scaling = scaling_of(one.alpha, rank, adapter.rslora)
        term = LoRA(linear.in_features, linear.out_features, rank, scaling, self.dropout, adapter.rslora)
        term.to(torch.promote_types(linear.weight.dtype, torch.float32))
        if not term.a.is_meta:
            term.a.data.copy_(one.a)
            term.b.data.copy_(one.b)
        return term


def _alpha(term: LoRA, rslora: bool) -> float:
    return term.scaling * (math.sqrt(len(term.a)) if rslora else len(term.a))


def _targets(modules: dict[str, nn.Module], chosen: dict[str, LoRA]) -> list[str]:
    """The last pieces of the names where these name the same linears, else the whole names."""
    endings = sorted({name.rpartition(".")[2] for name in chosen})
    linears = [name for name, child in modules.items() if isinstance(child, nn.Linear)]
    others = [n for n in linears if n not in chosen and any(fnmatchcase(n.rpartition(".")[2], e) for e in endings)]
    return list(chosen) if others else endings
