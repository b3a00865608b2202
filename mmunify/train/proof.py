"""The proof of what learns: gradients, changes and frozen tensors over the first steps of a stage, or the run stops."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from mmunify.checkpoint.shards import local_rows
from mmunify.errors import TrainingError
from mmunify.train.learns import clean_name, parameter_names, part_of
from mmunify.train.ranks import exchange, local_part
from mmunify.train.zero import gradient

NUM_STEPS = 20
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(slots=True)
class Proof:
    """What was seen.

    Attributes:
        steps: optimiser steps with a rate above zero that were looked at.
        num_learning: learning tensors.
        idle: learning tensors that never had a gradient other than zero, all of them allowed to.
        changed: part that learns -> whether its weights changed.
        num_frozen: frozen parameters and buffers.
        moved: those of them that changed (none, or the run would have stopped).
    """

    steps: int = 0
    num_learning: int = 0
    idle: list[str] = field(default_factory=list)
    changed: dict[str, bool] = field(default_factory=dict)
    num_frozen: int = 0
    moved: list[str] = field(default_factory=list)


class ProofCallback(pl.Callback):
    """Proves a stage's `learns:` over its first steps with a rate above zero, or raises.

    It holds when every learning tensor had a finite gradient other than zero in at least one step (a low-rank A has a
    zero gradient in the first one, while B is zero), when every part that learns changed, and when the checksum of
    every frozen parameter and buffer is as before; that last one is looked at again when the stage ends.

    Args:
        model: whose `requires_grad` flags say what learns.
        stage: its name, for messages.
        allow_idle: globs of learning tensors that may stay without a gradient.
        num_steps: to look at; a shorter stage is proven over what it has.
    """

    def __init__(
        self, model: nn.Module, stage: str, allow_idle: Sequence[str] = (), num_steps: int = NUM_STEPS
    ) -> None:
        self.model, self.stage, self.allow_idle, self.num_steps = model, stage, list(allow_idle), num_steps
        self.proof = Proof()
        self.is_done = False
        self._waiting: dict[str, nn.Parameter] = {}
        self._frozen: dict[str, int] = {}
        self._learning: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember how everything looks. After an interruption the proof starts anew, unless it was complete."""
        self._frozen = checksums(frozen_tensors(self.model))
        if not self.is_done:
            self._waiting = dict(learning_parameters(self.model))
            self._learning = checksums(self._waiting.items())
            self.proof = Proof(num_learning=len(self._waiting), num_frozen=len(self._frozen))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note which tensors have a gradient."""
        if self.is_done or not any(group["lr"] > 0 for group in optimizer.param_groups):
            return
        self.proof.steps += 1
        self._waiting = {name: p for name, p in self._waiting.items() if not _has_gradient(p)}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Conclude when enough steps were seen."""
        if not self.is_done and self.proof.steps >= self.num_steps:
            self._conclude()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Conclude short stages, and look at the frozen tensors once more."""
        if not self.is_done and self.proof.steps:
            self._conclude()
        self._check_frozen()

    def state_dict(self) -> dict[str, Any]:
        """The proof, once it is complete."""
        return asdict(self.proof) if self.is_done else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a complete proof back."""
        if state_dict:
            self.proof, self.is_done = Proof(**state_dict), True

    def _conclude(self) -> None:
        now = checksums(learning_parameters(self.model))
        moved = {part_of(name) for name, before in self._learning.items() if now[name] != before}
        # Where ranks hold rows of a tensor, a gradient may be in the rows of another one.
        waiting, changed = zip(*exchange([(set(self._waiting), moved)]), strict=True)
        self.proof.idle = [name for name in self._waiting if name in set.intersection(*waiting)]
        parts = sorted({part_of(name) for name in self._learning})
        self.proof.changed = {part: part in set.union(*changed) for part in parts}
        self._raise_for_idle([name for name in self.proof.idle if not _matches(name, self.allow_idle)])
        self._raise_for_still([part for part, has_changed in self.proof.changed.items() if not has_changed])
        self._check_frozen()
        self._waiting, self._learning, self.is_done = {}, {}, True

    def _raise_for_still(self, parts: list[str]) -> None:
        still = [part for part in parts if not self._may_idle(part)]
        if still:
            raise TrainingError(
                f"stage {self.stage!r}: {_listed(still)} should learn but did not change in {self.proof.steps} steps; "
                "is its rate zero, or is the optimiser given other tensors?"
            )

    def _raise_for_idle(self, idle: list[str]) -> None:
        if idle:
            raise TrainingError(
                f"stage {self.stage!r}: {len(idle)} of {self.proof.num_learning} learning tensors had no gradient in "
                f"{self.proof.steps} steps: {_listed(idle)}. Freeze them in learns:, give them data and a loss, or "
                "allow it under allow_idle:"
            )

    def _may_idle(self, part: str) -> bool:
        """Whether all learning tensors of a part may be idle."""
        return all(_matches(name, self.allow_idle) for name in self._learning if part_of(name) == part)

    def _check_frozen(self) -> None:
        now = checksums(frozen_tensors(self.model))
        self.proof.moved = [name for name, before in self._frozen.items() if now.get(name) != before]
        if self.proof.moved:
            raise TrainingError(
                f"stage {self.stage!r}: {len(self.proof.moved)} of {len(self._frozen)} frozen tensors changed: "
                f"{_listed(self.proof.moved)}. Something writes to them in its forward pass or in its own training mode"
            )


def learning_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """First clean name and parameter of everything that learns."""
    return ((names[0], parameter) for parameter, names in parameter_names(model) if parameter.requires_grad)


def frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters that don't learn, and buffers of modules in eval mode."""
    yield from ((names[0], parameter) for parameter, names in parameter_names(model) if not parameter.requires_grad)
    for path, module in model.named_modules():
        if not module.training:
            for name, buffer in module.named_buffers(prefix=path, recurse=False):
                yield clean_name(name), buffer


def checksums(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    """Sum of the bit patterns of every tensor's rows on this rank, modulo 2**64: cheap, and on its own device."""
    return {name: int(_words(tensor).sum(dtype=torch.int64)) for name, tensor in tensors}


def _words(tensor: Tensor) -> Tensor:
    data = local_rows(local_part(tensor).detach()).contiguous()
    data = torch.view_as_real(data) if data.is_complex() else data
    return data.view(_WORDS[data.element_size()])


def _has_gradient(parameter: nn.Parameter) -> bool:
    found = gradient(parameter)
    if found is None:
        return False
    rows = local_rows(found)
    return bool((rows != 0).any()) and bool(rows.isfinite().all())


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
