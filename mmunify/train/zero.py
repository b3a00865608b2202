"""DeepSpeed's ZeRO: the optimiser's states and gradients are split over the processes.

ZeRO takes every gradient away as soon as it is there, so that `parameter.grad` is None, and clips in its own step. What
needs gradients (their norm, the proof of what learns, a step that is left out) comes to them through this file.
Checkpoints are those of one process: every strategy reads them, and they can run no code, as DeepSpeed's own could.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.extras import require
from mmunify.train.in_order import InOrder
from mmunify.train.learns import parameter_names
from mmunify.train.ranks import whole

STEP = "step"
"""Of an optimiser's states, the one that isn't as large as its parameter."""


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's strategy for ZeRO with the steps of a `StageModule`; it runs on the CPU too.

    Args:
        stage: 1 = the optimiser's states are split, 2 = gradients too; for 3 see `Zero3Strategy`.
    """

    def __init__(self, stage: int) -> None:
        super().__init__(stage=stage, logging_batch_size_per_gpu=1)
        self._learning: list[list[nn.Parameter]] = []

    # --------------------------------------------------------------------------------------- setting up

    def setup_environment(self) -> None:
        """The processes find each other; Lightning's own refuses the CPU."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """The same, without the check of the devices' numbers where they have none."""
        if self.root_device.type == "cuda":
            super().setup_distributed()
            return
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _format_config(self) -> None:
        """DeepSpeed clips; precision is Lightning's: with "bf16-mixed", weights and states stay in 32 bits."""
        stage: Any = self.lightning_module.stage  # type: ignore[union-attr]
        self.config = {**self.config, "gradient_accumulation_steps": 1, "gradient_clipping": stage.clip}  # type: ignore[dict-item]

    def _setup_model_and_optimizer(self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        _check_types(model)
        self._learning = [list(group["params"]) for group in optimizer.param_groups]
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        most = sum(parameter.numel() for parameter in learning)
        split: dict[str, Any] = self.config["zero_optimization"]  # type: ignore[index]
        split["reduce_bucket_size"] = min(split["reduce_bucket_size"], most)  # it is memory
        device = self.local_rank if self.root_device.index is None else self.root_device.index
        engine, zero, *_ = deepspeed().initialize(
            args=Namespace(device_rank=device),
            model=self._model_for_deepspeed(model),
            model_parameters=learning,
            optimizer=optimizer,
            config=self.config,
            dist_init_required=False,
        )
        self._take_gradients(learning, zero)
        return engine, zero

    def _model_for_deepspeed(self, model: nn.Module) -> nn.Module:
        return Shell(model)

    def _take_gradients(self, learning: Sequence[nn.Parameter], zero: Any) -> None:
        InOrder(learning[::-1]).take_over()

    # --------------------------------------------------------------------------------------- one step

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A step, in 16 bits where the precision says so; DeepSpeed's own `forward` would turn that off."""
        assert self.lightning_module is not None
        mixed = self.precision_plugin.precision == "bf16-mixed"
        with torch.autocast(self.root_device.type, torch.bfloat16) if mixed else nullcontext():
            return self.lightning_module.training_step(*args, **kwargs)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """DeepSpeed gets ready for the backward pass of what its `forward` returns."""
        self.deepspeed_engine(closure_loss)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Backward passes inside are not the last ones of their step."""
        self.deepspeed_engine.set_gradient_accumulation_boundary(False)
        yield
        self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    def gradient_norm(self) -> float:
        """Norm over all that learns, before clipping; nan where a gradient isn't finite. Every rank must ask."""
        zero: Any = self.optimizers[0]
        # DeepSpeed's norm hides what isn't finite: it is -1, and then a part of a sum of squares.
        return float("nan") if zero.has_overflow() else float(zero.scaled_global_norm())

    def forget_gradients(self) -> None:
        """Throw this step's gradients away."""
        zero: Any = self.optimizers[0]
        zero.zero_grad()
        for held in (zero.averaged_gradients, getattr(zero, "all_grad_tensors", {})):
            held.update(dict.fromkeys(held))

    # --------------------------------------------------------------------------------------- checkpoints

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the states over."""
        return True

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state, as an optimiser on one process has it; every rank must ask, the first one gets it."""
        states: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        for group, flat, parameters in zip(self._inner.param_groups, self._flats, self._learning, strict=True):
            first = sum(len(each["params"]) for each in groups)
            groups.append({**group, "params": list(range(first, first + len(parameters)))})
            for number, parameter in enumerate(parameters, start=first):
                found = self._whole_state(flat, parameter)
                states |= {number: found} if found and self.is_global_zero else {}
        return {"state": states, "param_groups": groups}

    def _whole_state(self, flat: Tensor, parameter: nn.Parameter) -> dict[str, Any]:
        """State of one parameter; `flat` holds those of its group."""
        own, get = self._inner.state.get(flat, {}), deepspeed().utils.safe_get_full_optimizer_state
        whole = {key: get(parameter, key) for key in own if key != STEP}
        # Copied, as AdamW counts up each one: a tensor that all parameters share would count for all of them.
        return {key: whole.get(key, own[key]).cpu().clone() for key in own}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write one file, as on one process."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read any checkpoint of any strategy."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the weights back, and tell ZeRO, which has a copy of them."""
        Strategy.load_model_state_dict(self, checkpoint, strict)
        zero: Any = self.optimizers[0]
        zero.refresh_fp32_params()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the states back."""
        saved = checkpoint["optimizer_states"][0]
        new = zip(self._inner.param_groups, self._flats, self._learning, strict=True)
        for (group, flat, parameters), old in zip(new, saved["param_groups"], strict=True):
            group.update({key: value for key, value in old.items() if key != "params"})
            self._split_state(flat, parameters, [saved["state"].get(number, {}) for number in old["params"]])

    def _split_state(
        self, flat: Tensor, parameters: Sequence[nn.Parameter], states: Sequence[Mapping[str, Any]]
    ) -> None:
        """The reverse of `_whole_state`, for a group."""
        own = {key: torch.zeros_like(flat) for state in states for key in state if key != STEP}
        if not own:
            return
        steps = [state[STEP] for state in states if STEP in state]
        self._inner.state[flat] = own | ({STEP: max(steps).clone()} if steps else {})
        self._set_states(flat, parameters, states)

    def _set_states(
        self, flat: Tensor, parameters: Sequence[nn.Parameter], states: Sequence[Mapping[str, Any]]
    ) -> None:
        deepspeed().utils.lazy_init_hp_params_optimizer_state(parameters, flat, self._inner.state)
        for parameter, state in zip(parameters, states, strict=True):
            for key in state.keys() - {STEP}:
                deepspeed().utils.safe_set_full_optimizer_state(parameter, state[key].to(flat.device), key)

    @property
    def _inner(self) -> Any:
        """The optimiser that ZeRO steps."""
        zero: Any = self.optimizers[0]
        return zero.optimizer

    @property
    def _flats(self) -> list[Tensor]:
        """What it steps: one flat tensor per group, of this process's part."""
        return [group["params"][0] for group in self._inner.param_groups]


def clip_gradients(strategy: Any, optimizer: Any, largest: float) -> float:
    """Norm of the gradient over all that learns, before it is clipped; every rank must ask.

    Args:
        strategy: of the trainer.
        optimizer: whose gradients they are.
        largest: norm to clip to, now or (ZeRO) in the next step; 0 = no clipping.
    """
    if isinstance(strategy, ZeroStrategy):
        return strategy.gradient_norm()
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(whole(nn.utils.clip_grad_norm_(parameters, largest or float("inf"))))


def forget_gradients(strategy: Any, optimizer: Any) -> None:
    """Leave the gradients of this step out."""
    optimizer.zero_grad()
    if isinstance(strategy, ZeroStrategy):
        strategy.forget_gradients()


def gradient(parameter: nn.Parameter) -> Tensor | None:
    """A parameter's gradient, also where ZeRO hides it; then every rank must ask, and under ZeRO-3 gets its part."""
    if hasattr(parameter, "_z3_optimizer"):
        return deepspeed().utils.safe_get_local_grad(parameter)
    if parameter.grad is None and hasattr(parameter, "_hp_mapping"):
        return deepspeed().utils.safe_get_full_grad(parameter)
    return parameter.grad


class Shell(nn.Module):
    """What DeepSpeed is given as the model: its output is the loss of a forward pass that has already been.

    Args:
        held: the model, or the parameters of it that DeepSpeed takes.
    """

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.held = held

    def forward(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The loss, as it is."""
        return loss


def _check_types(model: nn.Module) -> None:
    """All that learns must be of one type: ZeRO puts it into one row."""
    types: dict[torch.dtype, str] = {}
    for parameter, names in parameter_names(model):
        if parameter.requires_grad:
            types.setdefault(parameter.dtype, names[0])
    if len(types) > 1:
        listed = ", ".join(f"{name} ({str(dtype).removeprefix('torch.')})" for dtype, name in types.items())
        raise UserError(
            f"strategy deepspeed: tensors of several types learn: {listed}; give the backbone dtype: float32, or "
            "freeze its tables (embeddings and output rows)"
        )


def deepspeed() -> Any:
    """The package, or an error that says how to get it."""
    return require("deepspeed", "strategy deepspeed")
