"""Puts a low-rank term beside linears or blocks that exist, without moving or renaming a parameter."""

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmunify.errors import UserError

_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(\.|$)")
_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)")


class ThinProduct(nn.Module, ABC):
    """A term B h(x) with few numbers h(x) per token: a subclass computes them in `narrow`."""

    b: nn.Parameter

    @abstractmethod
    def narrow(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows K"]:
        """What B multiplies."""

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """The term; the products run in the dtype of x."""
        states = self.narrow(x)
        return F.linear(states, self.b.to(states.dtype))


class LowRankLinear(nn.Linear):
    """A linear with a low-rank term. It *is* the old linear: same object, same `weight` and `bias`, one child more.

    So checkpoints from before load unchanged, tied weights stay tied, and every new parameter contains `.low_rank.`
    """

    low_rank: nn.Module

    def forward(self, input: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        """W x + b + low_rank(x)."""
        if is_off(self.low_rank):
            return super().forward(input)
        if not isinstance(self.low_rank, ThinProduct):
            return super().forward(input) + self.low_rank(input)
        rows = input.reshape(-1, self.in_features)
        base = F.linear(rows, self.weight, self.bias)
        states = self.low_rank.narrow(rows).to(base.dtype)
        # Added where W x stands: no second tensor as wide as the result is made.
        return base.addmm_(states, self.low_rank.b.to(base.dtype).T).view(*input.shape[:-1], -1)


def is_off(term: nn.Module) -> bool:
    """Whether a term takes no part: switched off, or merged into its linear's weight."""
    return getattr(term, "off", False) or getattr(term, "merged", False)


@contextmanager
def without_low_rank(module: nn.Module) -> Iterator[None]:
    """The model as it was before any tuner, inside a `with` block (a merged term stays merged)."""
    terms = [m.low_rank for m in module.modules() if isinstance(getattr(m, "low_rank", None), nn.Module)]
    before = [getattr(term, "off", False) for term in terms]
    try:
        for term in terms:
            term.off = True  # type: ignore[assignment]
        yield
    finally:
        for term, was in zip(terms, before, strict=True):
            term.off = was  # type: ignore[assignment]


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
    linears = find_linears(module, globs_of(match), title)
    terms = {name: make_beside(linear, partial(make, name)) for name, linear in linears.items()}
    for name, linear in linears.items():
        attach(linear, terms[name])
    return list(linears)


def attach(linear: nn.Linear, term: nn.Module, kind: type[LowRankLinear] = LowRankLinear) -> None:
    """Make a plain linear one with a term."""
    linear.low_rank = term
    linear.__class__ = kind


def globs_of(match: str | Sequence[str]) -> list[str]:
    """One glob or several, as a list."""
    return [match] if isinstance(match, str) else list(match)


def find_linears(module: nn.Module, globs: Sequence[str], title: str) -> dict[str, nn.Linear]:
    """The linears that `globs` name, each once, by clean name.

    Raises:
        UserError: a glob without a linear (with the nearest names), or a linear that can't be wrapped.
    """
    modules = named_modules(module)
    linears = {name: child for name, child in modules.items() if isinstance(child, nn.Linear)}
    found = _chosen(module, modules, linears, globs, title, "linear")
    for name, linear in found.items():
        check_plain(name, linear, title)
    return found


def find_blocks(module: nn.Module, globs: Sequence[str], title: str) -> dict[str, nn.Module]:
    """The modules with linears inside that `globs` name, each once, by clean name.

    Raises:
        UserError: a glob without such a module, a `Sequential`, or a module that has a low-rank term already.
    """
    modules = named_modules(module)
    blocks = {name: child for name, child in modules.items() if _has_linears(child)}
    found = _chosen(module, modules, blocks, globs, title, "block")
    for name, block in found.items():
        if isinstance(block, nn.Sequential):
            raise UserError(f"{title}: {name} is a Sequential, which would run its term as one more step; match others")
        if hasattr(block, "low_rank"):
            kind = type(block.low_rank).__name__
            raise UserError(f"{title}: {name} already has a {kind}; let only one tuner match it")
    return found


def named_modules(module: nn.Module) -> dict[str, nn.Module]:
    """All modules by clean name, shared ones under each of their names."""
    return {clean_name(name): child for name, child in module.named_modules(remove_duplicate=False)}


def _has_linears(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear) and any(isinstance(child, nn.Linear) for child in module.modules())


def _chosen(
    module: nn.Module,
    modules: Mapping[str, nn.Module],
    candidates: Mapping[str, Any],
    globs: Sequence[str],
    title: str,
    noun: str,
) -> dict[str, Any]:
    """Candidates that the globs name, each object once, under its first chosen name."""
    chosen: dict[str, bool] = {}
    for glob in globs:
        hits = [name for name in candidates if fnmatchcase(name, glob.removeprefix("!"))]
        if not hits:
            raise UserError(_nothing_matched(glob, module, modules, candidates, title, noun))
        chosen.update(dict.fromkeys(hits, not glob.startswith("!")))
    first_names = {id(candidates[name]): name for name in reversed(list(candidates)) if chosen.get(name)}
    found = {name: child for name, child in candidates.items() if first_names.get(id(child)) == name}
    if not found:
        raise UserError(f"{title}: match {list(globs)} excludes every {noun} of {type(module).__name__} that it names")
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


def make_beside(linear: nn.Linear, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """The term on the weight's device, in float32 at least: in half precision small steps would round away."""
    with torch.device(linear.weight.device):
        term = make(linear)
    return term.to(torch.promote_types(linear.weight.dtype, torch.float32)).train(linear.training)


def check_plain(name: str, linear: nn.Linear, title: str) -> None:
    """Refuse a linear that has a term, or that isn't exactly a `torch.nn.Linear`."""
    if isinstance(linear, LowRankLinear):
        raise UserError(f"{title}: {name} already has a {type(linear.low_rank).__name__}; let only one tuner match it")
    if type(linear) is not nn.Linear:
        kind = f"{type(linear).__module__}.{type(linear).__qualname__}"
        raise UserError(f"{title}: {name} is a {kind}, which computes its own way; only torch.nn.Linear can be wrapped")


def _nothing_matched(
    glob: str,
    module: nn.Module,
    modules: Mapping[str, nn.Module],
    candidates: Mapping[str, Any],
    title: str,
    noun: str,
) -> str:
    """Says what the glob found instead, and which candidates there are."""
    others = [child for name, child in modules.items() if fnmatchcase(name, glob.removeprefix("!"))]
    kinds = ", ".join(sorted({type(child).__name__ for child in others}))
    instead = f"; it names {len(others)} other modules ({kinds})" if others else ""
    families = list(dict.fromkeys(_INDEX.sub("*", name) for name in candidates))
    nearest = difflib.get_close_matches(glob, families, n=4, cutoff=0.0)
    return (
        f"{title}: match {glob!r} names none of the {len(candidates)} {noun}s of {type(module).__name__}{instead}. "
        f"Nearest: {', '.join(nearest) or f'there is no {noun}'}"
    )
