"""Reading weights from safetensors, with messages that name the file."""

from pathlib import Path

from torch import Tensor

from mmunify.errors import CheckpointError


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, or something else than safetensors (a pickle).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _require_file(Path(file))
    try:
        return load_file(file, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(_unreadable(file, error)) from error


def check_weights(folder: str | Path) -> None:
    """Open every `*.safetensors` of a folder, headers and lengths alone, so that damage is named early.

    Raises:
        CheckpointError: there is none (pickles are refused), or one of them can't be read.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        _require_file(Path(folder) / "model.safetensors")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise CheckpointError(_unreadable(file, error)) from error


def _require_file(file: Path) -> None:
    if file.is_file():
        return
    others = sorted(p.name for p in file.parent.iterdir()) if file.parent.is_dir() else []
    beside = f"; the folder holds {', '.join(others)}" if others else ""
    raise CheckpointError(f"{file} does not exist{beside}: weights are read from safetensors alone, never from pickles")


def _unreadable(file: str | Path, error: Exception) -> str:
    return f"{file} is truncated or no safetensors file ({error}); copy or download it again"


def quiet_loading(path: str) -> None:
    """No bar of transformers over the few shards of a local folder; downloads keep theirs."""
    from transformers.utils import logging

    if Path(path).is_dir():
        logging.disable_progress_bar()
