"""Weights that are split over the processes, and whole only while they run.

DeepSpeed's own hooks want tensors to go in and out of every module, and the same modules to run everywhere; a process
whose batch has no picture runs others than one that has. The groups here are those of `fsdp2`: layers of the backbone
and adapters that learn, which run in every step of every process.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mmunify.errors import TrainingError
from mmunify.train.ranks import num_ranks, shape_of
from mmunify.train.sharding import groups


class WholeWeights:
    """Puts weights together before they run, takes them apart after, and hands gradients over in one order.

    All processes must do so at the same moments, as they exchange something each time. In the forward pass, that is the
    order of the groups. In the backward pass it is the reverse: what was made last comes first, so when a group's
    output is reached, the group that ran after it is done. Gradients are handed over at these moments alone, those of
    the rest when the backward pass ends, for they come earlier or later with what a batch has.

    Args:
        model: whose groups hold weights.
        split: parameters that DeepSpeed has split.
        reduce: takes a parameter whose gradient is complete.
    """

    def __init__(self, model: nn.Module, split: Sequence[nn.Parameter], reduce: Callable[[nn.Parameter], None]) -> None:
        chosen = set(split)
        held = {module: [p for p in module.parameters() if p in chosen] for module in groups(model)}
        times = Counter(parameter for members in held.values() for parameter in members)
        # What two groups share is none's: it is whole all the time.
        self.groups = {module: [p for p in members if times[p] == 1] for module, members in held.items()}
        self.rest = [p for p in model.parameters() if p in chosen and times[p] != 1]
        self._reduce = reduce
        self._running: nn.Module | None = None
        self._due: Counter[nn.Module] = Counter()
        self._storages: dict[int, nn.Parameter] = {}
        self._hooks = [module.register_forward_pre_hook(self._before_forward) for module in self.groups]
        self._hooks += [module.register_forward_hook(self._after_forward) for module in self.groups]

    def let_go(self) -> None:
        """Give the modules their own forward back."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def step(self) -> Iterator[None]:
        """The rest is whole inside, and nothing after."""
        _put_together(self.rest)
        try:
            with self._saved_by_name():
                yield
        finally:
            self._running = None
            self._due.clear()
            self._storages.clear()
            for members in (self.rest, *self.groups.values()):
                _take_apart(members)

    def watch(self, loss: Float[Tensor, ""]) -> None:
        """Notice when the backward pass of a loss ends."""
        loss.register_hook(lambda _: torch.autograd.Variable._execution_engine.queue_callback(self._end_backward))  # type: ignore[attr-defined]

    # --------------------------------------------------------------------------------------- groups

    def _before_forward(self, module: nn.Module, _: Any) -> None:
        self._open(module)

    def _after_forward(self, module: nn.Module, _: Any, output: Any) -> None:
        made = [tensor for tensor in _tensors(output) if tensor.requires_grad]
        for tensor in made:
            tensor.register_hook(partial(self._before_backward, module))
        self._due[module] += bool(made)
        self._close(module)

    def _before_backward(self, module: nn.Module, _: Tensor) -> None:
        if self._running is not module:
            self._leave()
            self._open(module)
            self._running = module

    def _leave(self) -> None:
        """The group whose backward pass is running is done with it."""
        module, self._running = self._running, None
        if module is not None:
            self._due[module] -= 1
            if not self._due[module]:
                self._hand_over(self.groups[module])
            self._close(module)

    def _end_backward(self) -> None:
        self._leave()
        self._hand_over(self.rest)
        for module in [module for module in self.groups if self._due[module] > 0]:
            self._hand_over([parameter for parameter in self.groups[module] if parameter.grad is not None])
        self._due.clear()

    def _hand_over(self, members: Sequence[nn.Parameter]) -> None:
        for parameter in members:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._reduce(parameter)

    def _open(self, module: nn.Module) -> None:
        members = self.groups[module]
        _put_together(members)
        self._storages |= {parameter.untyped_storage().data_ptr(): parameter for parameter in members}

    def _close(self, module: nn.Module) -> None:
        for parameter in self.groups[module]:
            self._storages.pop(parameter.untyped_storage().data_ptr(), None)
        _take_apart(self.groups[module])

    # --------------------------------------------------------------------------------------- what autograd keeps

    def _saved_by_name(self) -> AbstractContextManager[None]:
        """What autograd keeps of a group's weights for the backward pass (a transposed view of them) would keep all of
        them in memory; it keeps their names."""
        return saved_tensors_hooks(self._pack, self._unpack) if num_ranks() > 1 else nullcontext()

    def _pack(self, tensor: Tensor) -> Any:
        parameter = self._storages.get(tensor.untyped_storage().data_ptr())
        if parameter is None:
            return tensor
        return _View(parameter, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, saved: Any) -> Tensor:
        if not isinstance(saved, _View):
            return saved
        if not saved.parameter.numel():
            raise TrainingError(
                f"strategy deepspeed_stage_3: a weight of shape {tuple(shape_of(saved.parameter))} is needed in the "
                "backward pass while it is split: its layer's output is not what the loss depends on; use fsdp2"
            )
        return saved.parameter.data.as_strided(saved.size, saved.stride, saved.offset)


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor that shows the numbers of a parameter."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


def _put_together(parameters: Sequence[Any]) -> None:
    away = [parameter for parameter in parameters if parameter.ds_status.name == "NOT_AVAILABLE"]
    if away:
        away[0].all_gather_coalesced(away).wait()


def _take_apart(parameters: Sequence[Any]) -> None:
    there = [parameter for parameter in parameters if parameter.ds_status.name == "AVAILABLE"]
    if there:
        there[0].partition(there)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in what a module returns."""
    if isinstance(tree, Tensor):
        yield tree
    elif is_dataclass(tree):
        yield from _tensors([getattr(tree, each.name) for each in fields(tree)])
    elif isinstance(tree, Mapping):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _tensors(each)
