"""FSDP2: which modules are split over the processes, and how they come to their weights.

Every transformer layer of the backbone is a group of its own, and so is every adapter that learns; all other parts that
learn form one group with the rest of the backbone. They are whole again only while they run. Parts in which nothing
learns (a frozen tower) stay whole on every process: not every batch has a picture, and processes must not wait for one
that has none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from mmunify.checkpoint.shards import is_split
from mmunify.errors import TrainingError, UserError
from mmunify.train.layers import backbone_layers
from mmunify.train.learns import parameter_names

_PARTS = ("encoders", "adapters", "heads", "detokenizers")


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a model is split.

    Attributes:
        wrap: globs of further modules that become groups of their own; they must run in every step of every process.
        meta: whether the first process alone reads the weights and sends them to the others.
        cpu_offload: whether weights and the optimiser's states stay in the memory of the CPU.
    """

    wrap: tuple[str, ...] = ()
    meta: bool = False
    cpu_offload: bool = False


def shard_model(
    model: nn.Module, mesh: Any, device: torch.device, sharding: Sharding, dtype: torch.dtype | None
) -> None:
    """Split a model in place.

    Args:
        model: with its `requires_grad` flags set.
        mesh: of one dimension: the processes that share the weights.
        device: of this process.
        sharding: see its class.
        dtype: in which weights are exchanged and used; None = their own. Gradients are then added in float32.

    Raises:
        UserError: tensors of different types learn in one group, or a glob that matches no module.
        TrainingError: something that learns was left whole, or was left without values.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None, cast_forward_inputs=False
    )
    offload = CPUOffloadPolicy() if sharding.cpu_offload else OffloadPolicy()
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy, "offload_policy": offload}
    outside = set(left_whole(model))
    if sharding.meta:
        _send_buffers(model, device)
        _send(outside, model, device)
    for module in [*groups(model, sharding.wrap), model]:
        inside = [p for p in module.parameters() if p not in outside and not is_split(p)]
        _check_types(inside)
        if sharding.meta:
            _send(inside, model, device)
        inside = [p for p in module.parameters() if p not in outside and not is_split(p)]
        if inside:
            fully_shard(module, ignored_params=set(outside), **options)
    _check_split(model)


def groups(model: nn.Module, wrap: Sequence[str] = ()) -> list[nn.Module]:
    """Modules that are split each for itself, inner ones first."""
    names = {module: name for name, module in model.named_modules()}
    for glob in wrap:
        if not any(fnmatchcase(name, glob) for name in names.values()):
            raise UserError(f"trainer.strategy.wrap: no module is named {glob!r}")
    chosen = {*backbone_layers(model), *_learning_adapters(model)}
    chosen |= {module for module, name in names.items() if any(fnmatchcase(name, glob) for glob in wrap)}
    # In the same order on every process: they send weights to each other one group after the other.
    return sorted(chosen, key=lambda module: (-names[module].count("."), names[module]))


def _learning_adapters(model: nn.Module) -> Iterator[nn.Module]:
    return (part for part in getattr(model, "adapters", nn.ModuleDict()).values() if _learns(part))


def left_whole(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of the parts, other than the backbone, in which nothing learns."""
    for group in _PARTS:
        for part in getattr(model, group, nn.ModuleDict()).values():
            if not _learns(part):
                yield from part.parameters()


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _check_types(parameters: Sequence[nn.Parameter]) -> None:
    types = {parameter.dtype for parameter in parameters if parameter.requires_grad}
    if len(types) > 1:
        listed = ", ".join(sorted(map(str, types)))
        raise UserError(
            f"strategy fsdp2: tensors of {listed} learn in one group; give the backbone dtype: float32, or freeze "
            "its tables (embeddings and output rows)"
        )


def _check_split(model: nn.Module) -> None:
    """A learning tensor that is not split would get every process's own gradient, and drift apart in silence."""
    for parameter, names in parameter_names(model):
        if parameter.requires_grad and not is_split(parameter):
            raise TrainingError(f"strategy fsdp2: {names[0]} learns but is not split over the processes")
        if parameter.is_meta:
            raise TrainingError(f"strategy fsdp2: {names[0]} got no values")
    for name, module in model.named_modules():
        empty = [key for key, value in vars(module).items() if isinstance(value, torch.Tensor) and value.is_meta]
        if empty:
            raise TrainingError(
                f"strategy fsdp2: {name}.{empty[0]} has no values; make it a buffer, or use meta: false"
            )


# ------------------------------------------------------------------------------------ weights from the first process


def _send(parameters: Iterable[nn.Parameter], model: nn.Module, device: torch.device) -> None:
    """Move parameters to the device, with the first process's values, wherever they are registered."""
    wanted, made = set(parameters), {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter in wanted:
                if parameter not in made:
                    values = _from_first(parameter.detach(), device)
                    made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[parameter]


def _send_buffers(model: nn.Module, device: torch.device) -> None:
    """The same for buffers, also for those that no checkpoint holds (rotary frequencies)."""
    made: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                if buffer not in made:
                    made[buffer] = _from_first(buffer, device)
                module._buffers[name] = made[buffer]


def _from_first(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    values = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device).contiguous()
    dist.broadcast(values, src=0)
    return values
