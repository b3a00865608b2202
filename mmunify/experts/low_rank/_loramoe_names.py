"""LoRAMoE's checkpoint names (github.com/Ablustrund/LoRAMoE): `lora_A{i}`, `lora_B{i}`, `lora_route` per linear."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._foreign_names import check_shape, match_names, refuse_others
from mmunify.experts.low_rank._inject import LowRankLinear, named_modules
from mmunify.experts.low_rank._routing import GatedLayer

_NAME = re.compile(r"(?:base_model\.model\.)?(?P<linear>.+)\.lora_(?P<half>A(?P<a>\d+)|B(?P<b>\d+)|route)\.weight")


def written(module: nn.Module, prefix: str = "base_model.model.") -> dict[str, Tensor]:
    """All mixtures of `module` under LoRAMoE's names.

    Args:
        module: tuned by `lora_moe` with gates on linears.
        prefix: in front of every name; peft's own by default.

    Raises:
        UserError: there is no mixture.
    """
    state: dict[str, Tensor] = {}
    for name, term in _mixtures(module).items():
        count, start = term.num_experts, f"{prefix}{name}.lora_"
        state |= {f"{start}A{i}.weight": a.detach().clone() for i, a in enumerate(term.a.chunk(count))}
        state |= {f"{start}B{i}.weight": b.detach().contiguous() for i, b in enumerate(term.b.chunk(count, dim=1))}
        if term.gate is not None:
            state[f"{start}route.weight"] = term.gate.detach().clone()
    return state


def read(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy a LoRAMoE checkpoint into the mixtures of `module`; nothing is copied unless all of it fits.

    Args:
        module: tuned by `lora_moe` on the same linears, with the same numbers.
        state: names -> tensors.

    Returns:
        Names of the linears.

    Raises:
        UserError: other linears, another number of experts, or a shape that doesn't fit.
    """
    title = "LoRAMoE checkpoint"
    known = {name: found for name in state if (found := _NAME.fullmatch(name))}
    refuse_others(title, state, known, "part of a LoRA-MoE")
    mixtures = _mixtures(module)
    places = match_names(title, list(dict.fromkeys(found["linear"] for found in known.values())), mixtures)
    missing = [name for name in mixtures if name not in places.values()]
    if missing:
        raise UserError(f"{title}: has nothing for {len(missing)} linears of the module ({missing[0]}, ...)")
    plan = [(mixtures[ours], _stacked(title, theirs, known, state, mixtures[ours])) for theirs, ours in places.items()]
    with torch.no_grad():
        for term, tensors in plan:
            for half, tensor in tensors.items():
                getattr(term, half).copy_(tensor)
    return list(places.values())


def _stacked(
    title: str, linear: str, known: Mapping[str, re.Match[str]], state: Mapping[str, Tensor], term: Any
) -> dict[str, Tensor]:
    """The tensors of one linear in our layout."""
    mine = {found["half"]: state[name] for name, found in known.items() if found["linear"] == linear}
    count, rank = term.num_experts, len(term.a) // term.num_experts
    given = sum(half.startswith("A") for half in mine)
    wanted = {*(f"{half}{i}" for half in "AB" for i in range(count)), *(["route"] if term.gate is not None else [])}
    if given != count or mine.keys() != wanted:
        raise UserError(f"{title}: {linear} has {given} experts, {sorted(mine)}, but the module has {count}")
    routed = () if term.gate is None else tuple(term.gate.shape)
    shapes = {"A": (rank, term.a.shape[1]), "B": (term.b.shape[0], rank), "r": routed}
    for half, tensor in mine.items():
        check_shape(title, f"{linear}.lora_{half}", tensor, shapes[half[0]])
    stacked = {
        "a": torch.cat([mine[f"A{i}"] for i in range(count)]),
        "b": torch.cat([mine[f"B{i}"] for i in range(count)], dim=1),
    }
    return stacked | ({"gate": mine["route"]} if "route" in mine else {})


def _mixtures(module: nn.Module) -> dict[str, Any]:
    found = {
        name: child.low_rank
        for name, child in named_modules(module).items()
        if isinstance(child, LowRankLinear) and isinstance(child.low_rank, GatedLayer)
    }
    if not found:
        raise UserError(f"{type(module).__name__} has no linear with a mixture of LoRA experts; apply lora_moe first")
    return found
