"""Gradients that reach ZeRO in one order."""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmunify.errors import TrainingError


class InOrder:
    """Hands gradients to ZeRO in one order, the same on all processes.

    ZeRO adds up over the processes what it gets, in the order in which it gets it. That order is not the same
    everywhere: a process whose batch has no picture gives the adapter's weights a gradient of zero at another moment
    than one that has. Unless they are put in order, gradients of one weight are added to those of another
    (https://github.com/deepspeedai/DeepSpeed/issues/2343).

    Args:
        parameters: all that learn, about in the order in which their gradients come.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._hooks: list[list[Any]] = []
        self._due: deque[int] = deque()
        self._here: set[int] = set()

    def take_over(self) -> None:
        """Stand in front of the hooks that the parameters have.

        Raises:
            TrainingError: a parameter has none, so ZeRO hears of gradients in another way.
        """
        for place, parameter in enumerate(self.parameters):
            hooks: Any = parameter._post_accumulate_grad_hooks  # type: ignore[attr-defined]
            if not hooks:
                raise TrainingError("strategy deepspeed: this version of DeepSpeed hooks gradients in an unknown way")
            self._hooks.append(list(hooks.values()))
            hooks.update(dict.fromkeys(hooks, _nothing))
            hooks[next(iter(hooks))] = partial(self._arrived, place)

    def _arrived(self, place: int, _: Tensor) -> None:
        if not self._due:
            self._due.extend(at for at, parameter in enumerate(self.parameters) if _takes_part(parameter))
        self._here.add(place)
        while self._due and self._due[0] in self._here:
            at = self._due.popleft()
            self._here.remove(at)
            for hook in self._hooks[at]:
                hook(self.parameters[at])


def _takes_part(parameter: nn.Parameter) -> bool:
    """Whether the backward pass that is running reaches a parameter."""
    return torch._C._will_engine_execute_node(torch.autograd.graph.get_gradient_edge(parameter).node)


def _nothing(*_: Any) -> None:
    pass
