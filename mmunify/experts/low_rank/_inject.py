"""Puts a low-rank term beside linears that exist, without moving or renaming a parameter."""

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError

_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(\.|$)")
_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)")


class LowRankLinear(nn.Linear):
    """A linear with a low-rank term. It *is* the old linear: same object, same `weight` and `bias`, one child more.

    So checkpoints from before load unchanged, tied weights stay tied, and every new parameter contains `.low_rank.`
    """

    low_rank: nn.Module

    def forward(self, input: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """W x + b + low_rank(x)."""
        return super().forward(input) + self.low_rank(input)


def clean_name(name: str) -> str:
    """A module's or parameter's name without what torch.compile, FSDP and checkpointing put into it."""
    return _WRAPPERS.sub("", name).rstrip(".")


def inject(
    module: nn.Module, match: str | Sequence[str], make: Callable[[str, nn.Linear], nn.Module], title: str
) -> list[str]:
    """Give every linear that `match` names a child `low_rank`; all is checked before anything changes.

    Args:
        module: searched with all that is below it.
        match: globs over clean module names, in order; the last that matches wins, a leading `!` excludes.
        make: (name, linear) -> the low-rank term.
        title: who asks, for messages.

    Returns:
        The names of the linears, in the module's order.

    Raises:
        UserError: a glob without a linear, a linear that can't be wrapped, or whatever `make` refuses.
    """
    linears = find_linears(module, [match] if isinstance(match, str) else list(match), title)
    terms = {name: _make_beside(linear, partial(make, name)) for name, linear in linears.items()}
    for name, linear in linears.items():
        linear.low_rank = terms[name]
        linear.__class__ = LowRankLinear
    return list(linears)


def find_linears(module: nn.Module, globs: Sequence[str], title: str) -> dict[str, nn.Linear]:
    """The linears that `globs` name, each once, by clean name.

    Raises:
        UserError: a glob without a linear (with the nearest names), or a linear that can't be wrapped.
    """
    modules = {clean_name(name): child for name, child in module.named_modules(remove_duplicate=False)}
    linears = {name: child for name, child in modules.items() if isinstance(child, nn.Linear)}
    chosen: dict[str, bool] = {}
    for glob in globs:
        hits = [name for name in linears if fnmatchcase(name, glob.removeprefix("!"))]
        if not hits:
            raise UserError(_nothing_matched(glob, module, modules, linears, title))
        chosen.update(dict.fromkeys(hits, not glob.startswith("!")))
    first_names = {id(linears[name]): name for name in reversed(linears) if chosen.get(name)}
    found = {name: linears[name] for name in linears if first_names.get(id(linears[name])) == name}
    if not found:
        raise UserError(f"{title}: match {list(globs)} excludes every linear of {type(module).__name__} that it names")
    for name, linear in found.items():
        _check_plain(name, linear, title)
    return found


def check_rank(name: str, linear: nn.Linear, rank: int, title: str) -> None:
    """Refuse a rank that the matrix doesn't have."""
    limit = min(linear.in_features, linear.out_features)
    if rank > limit:
        raise UserError(
            f"{title}: rank {rank} is above {limit}, the smaller side of {name} "
            f"({linear.in_features} -> {linear.out_features}); choose a smaller rank or another match"
        )


def check_numbers(title: str, rank: int, alpha: int | float, dropout: int | float, **counts: int) -> None:
    """Refuse settings that no matrix allows."""
    for key, value in {"rank": rank, **counts}.items():
        if value < 1:
            raise UserError(f"{title}: {key} must be at least 1, got {value}")
    if alpha <= 0:
        raise UserError(f"{title}: alpha must be above 0, got {alpha}")
    if not 0 <= dropout < 1:
        raise UserError(f"{title}: dropout must be in [0, 1), got {dropout}")


def _make_beside(linear: nn.Linear, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """The term on the weight's device, in float32 at least: in half precision small steps would round away."""
    with torch.device(linear.weight.device):
        term = make(linear)
    return term.to(torch.promote_types(linear.weight.dtype, torch.float32)).train(linear.training)


def _check_plain(name: str, linear: nn.Linear, title: str) -> None:
    if isinstance(linear, LowRankLinear):
        raise UserError(f"{title}: {name} already has a {type(linear.low_rank).__name__}; let only one tuner match it")
    if type(linear) is not nn.Linear:
        kind = f"{type(linear).__module__}.{type(linear).__qualname__}"
        raise UserError(f"{title}: {name} is a {kind}, which computes its own way; only torch.nn.Linear can be wrapped")


def _nothing_matched(
    glob: str, module: nn.Module, modules: dict[str, nn.Module], linears: dict[str, nn.Linear], title: str
) -> str:
    """Says what the glob found instead, and which linears there are."""
    others = [child for name, child in modules.items() if fnmatchcase(name, glob.removeprefix("!"))]
    kinds = ", ".join(sorted({type(child).__name__ for child in others}))
    instead = f"; it names {len(others)} other modules ({kinds})" if others else ""
    families = list(dict.fromkeys(_INDEX.sub("*", name) for name in linears))
    nearest = difflib.get_close_matches(glob, families, n=4, cutoff=0.0)
    return (
        f"{title}: match {glob!r} names none of the {len(linears)} linears of {type(module).__name__}{instead}. "
        f"Nearest: {', '.join(nearest) or 'there is no linear'}"
    )
