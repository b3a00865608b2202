"""Lightning's strategy for FSDP2, with checkpoints as folders that hold what learns and can run no code."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy

from mmunify.checkpoint.shards import WRITE_ERRORS, CheckpointReader, filled, save_shards
from mmunify.checkpoint.swap import remove
from mmunify.errors import CheckpointError
from mmunify.train.ranks import copy_rows, exchange, split_like
from mmunify.train.sharding import Sharding, shard_model


class Fsdp2Strategy(ModelParallelStrategy):
    """Splits the model of a `StageModule` over all processes.

    Args:
        sharding: see its class.
    """

    def __init__(self, sharding: Sharding) -> None:
        super().__init__(data_parallel_size="auto", tensor_parallel_size=1)
        self.sharding = sharding

    def setup_environment(self) -> None:
        """All processes share the data; none share a layer."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: torch.nn.Module, dtype: torch.dtype | None) -> None:
        """Split a model, see `shard_model`."""
        shard_model(model, self.device_mesh["data_parallel"], self.root_device, self.sharding, dtype)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Tensors as they are, split."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The state as it is, split."""
        return optimizer.state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write this process's part of a checkpoint folder.

        Raises:
            OSError: a part can't be written, in every process: none may take the folder for whole.
        """
        path = Path(self.broadcast(filepath))
        if self.is_global_zero:
            remove(path)
        self.barrier("clean")
        broken = ""
        try:
            save_shards(path, checkpoint, self.global_rank, self.world_size)
        except WRITE_ERRORS as error:
            broken = f"rank {self.global_rank}: {error}"
        found = [text for text in exchange([broken]) if text]
        if found:
            raise OSError("; ".join(found))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read this process's rows of a checkpoint that any number of processes wrote, and the plain data.

        Raises:
            CheckpointError: a file of the checkpoint is missing or truncated, or it was written for other weights.
        """
        assert self.lightning_module is not None
        reader = CheckpointReader(Path(self.broadcast(checkpoint_path)))
        plain = reader.plain
        targets = self.lightning_module.state_dict()
        for name, mark in plain["state_dict"].items():
            if name not in targets or reader.shape(_name(mark)) != tuple(targets[name].shape):
                raise CheckpointError(f"{reader.path} holds {name}, which doesn't fit this stage's model")
            copy_rows(targets[name], partial(reader.rows, _name(mark)))
        for optimizer, state in zip(self.optimizers, plain["optimizer_states"], strict=True):
            optimizer.load_state_dict(_split_state(reader, state, optimizer))
        return reader.tree(
            lambda name: name if name.startswith(("state_dict", "optimizer_states")) else reader.tensor(name)
        )


class AnyCheckpointIO(TorchCheckpointIO):
    """Reads checkpoint folders too, so that a run split over processes can be resumed in one piece."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The whole checkpoint.

        Raises:
            CheckpointError: a file of it is missing or truncated.
        """
        return CheckpointReader(Path(path)).tree()


def _split_state(
    reader: CheckpointReader, state: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """An optimiser's state with tensors split as the parameters are; parameters are numbered as the optimiser does."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        number: filled(entries, lambda name, at=int(number): split_like(reader.tensor(name), parameters[at]))
        for number, entries in state["state"].items()
    }
    return {**state, "state": states}


def _name(mark: str) -> str:
    found: list[str] = []
    filled(mark, found.append)
    return found[0]
