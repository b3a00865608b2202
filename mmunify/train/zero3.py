"""ZeRO-3: weights are split too.

DeepSpeed keeps the parts, adds up their gradients and steps them; when they are whole is told by `WholeWeights`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mmunify.errors import TrainingError
from mmunify.layers.shapes import shape_of
from mmunify.train.ranks import local_part, part_of_rank, whole
from mmunify.train.sharding import left_whole
from mmunify.train.whole_weights import WholeWeights
from mmunify.train.zero import STEP, Shell, ZeroStrategy, deepspeed

_NEEDED = (
    *("parameter_offload", "reduce_ready_partitions_and_remove_grads", "grad_partitions_flat_buffer"),
    *("averaged_gradients", "micro_step_id", "fp32_partitioned_groups_flat", "_grad_acc_hooks"),
)
"""Of DeepSpeed's optimiser, what is used here and may be called otherwise in another version."""


class Zero3Strategy(ZeroStrategy):
    """The optimiser's states, gradients and weights are split; see `ZeroStrategy` and `WholeWeights`."""

    def __init__(self) -> None:
        super().__init__(stage=3)
        self._split: list[nn.Parameter] = []
        self._weights: WholeWeights | None = None

    # --------------------------------------------------------------------------------------- setting up

    def _model_for_deepspeed(self, model: nn.Module) -> nn.Module:
        """Take the weights apart, one after the other, so that the device never holds all of them."""
        self.config["zero_optimization"] |= {  # type: ignore[index]
            "memory_efficient_linear": False,  # it would take the place of torch's for good
            "stage3_param_persistence_threshold": 0,
        }
        outside = set(left_whole(model.model))  # type: ignore[arg-type]
        shell = Shell(nn.ParameterList(p for p in model.parameters() if p not in outside))
        deepspeed().zero.Init(module=shell, config_dict_or_path=self.config)
        for parameter in shell.parameters():
            part, length = local_part(parameter), shape_of(parameter).numel()
            part[max(0, length - dist.get_rank() * len(part)) :] = 0  # the last parts are longer than what they hold
        model.to(self.root_device)
        self._split = list(shell.parameters())
        return shell

    def _take_gradients(self, learning: Sequence[nn.Parameter], zero: Any) -> None:
        _check_version(zero)
        zero.parameter_offload.destroy()
        for hook in zero._grad_acc_hooks:
            hook.remove()
        model: Any = self.lightning_module.model  # type: ignore[union-attr]
        self._weights = WholeWeights(model, self._split, zero.reduce_ready_partitions_and_remove_grads)

    def teardown(self) -> None:
        """Let go of the model."""
        if self._weights is not None:
            self._weights.let_go()
            self.deepspeed_engine.module._modules.clear()  # DeepSpeed keeps a list of modules
        super().teardown()

    # --------------------------------------------------------------------------------------- one step

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A step, between whose begin and end the weights outside of the groups are whole."""
        assert self._weights is not None
        zero: Any = self.optimizers[0]
        zero.grad_partitions_flat_buffer.zero_()  # what has no gradient now would have that of the step before
        with self._weights.step():
            return super().training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """DeepSpeed and the weights get ready for the backward pass."""
        assert self._weights is not None
        super().pre_backward(closure_loss)
        zero: Any = self.optimizers[0]
        zero.micro_step_id = max(1, zero.micro_step_id)  # gradients are added to what is there: zeros at first
        self._weights.watch(closure_loss)

    def gradient_norm(self) -> float:
        """Norm over all that learns, before clipping; no finite number where a gradient isn't one."""
        zero: Any = self.optimizers[0]
        squares = torch.linalg.vector_norm(zero.grad_partitions_flat_buffer).square()
        dist.all_reduce(squares)
        return float(squares.sqrt())

    def forget_gradients(self) -> None:
        """Throw this step's gradients away."""
        zero: Any = self.optimizers[0]
        zero.zero_grad()
        zero.averaged_gradients.clear()

    # --------------------------------------------------------------------------------------- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors for the first process; every rank must ask. What no checkpoint holds stays where it is."""
        assert self.lightning_module is not None
        found: dict[str, Any] = {}
        for name, tensor in self.lightning_module.state_dict(keep_vars=True).items():
            if _is_kept(name, tensor):
                values = whole(tensor).detach()
                found |= {name: values.cpu()} if self.is_global_zero else {}
        return found

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of the weights back."""
        assert self.lightning_module is not None
        saved = checkpoint["state_dict"]
        with torch.no_grad():
            for name, tensor in self.lightning_module.state_dict(keep_vars=True).items():
                if name in saved:
                    _copy_part(tensor, saved[name])
        zero: Any = self.optimizers[0]
        zero.refresh_fp32_params()

    @property
    def _flats(self) -> list[Tensor]:
        zero: Any = self.optimizers[0]
        return zero.fp32_partitioned_groups_flat

    def _set_states(
        self, flat: Tensor, parameters: Sequence[nn.Parameter], states: Sequence[Mapping[str, Any]]
    ) -> None:
        for parameter, state in zip(parameters, states, strict=True):
            for key in state.keys() - {STEP}:
                part = torch.zeros_like(local_part(parameter), dtype=flat.dtype)
                mine = part_of_rank(state[key].flatten(), part)
                part[: len(mine)] = mine
                deepspeed().utils.safe_set_local_optimizer_state(parameter, part, key)


def _check_version(zero: Any) -> None:
    lacking = [name for name in _NEEDED if not hasattr(zero, name)]
    if lacking:
        raise TrainingError(f"strategy deepspeed_stage_3: this version of DeepSpeed has no {', '.join(lacking)}")


def _is_kept(name: str, tensor: Any) -> bool:
    """Whether a checkpoint holds a tensor of the module: buffers, means, and what learns."""
    return not (isinstance(tensor, nn.Parameter) and name.startswith("model.") and not tensor.requires_grad)


def _copy_part(tensor: Tensor, values: Tensor) -> None:
    part = local_part(tensor)
    if part is tensor:
        tensor.copy_(values)
    else:
        mine = part_of_rank(values.flatten(), part)
        part[: len(mine)].copy_(mine)
