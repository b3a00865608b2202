"""What a published layout is, and what all of them share: configurations, added rows, pixels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmunify.checkpoint.names import Names
from mmunify.errors import CheckpointError
from mmunify.model import UnifiedModel

Tree = dict[str, Any]
NEWLINE = "<image_newline>"
"""LLaVA-NeXT's learned newline as a string of the vocabulary."""

_NOT_ARGUMENTS = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One published layout.

    Attributes:
        model_type: in their config.json; also what messages call it.
        model_class: transformers' class.
        parts: names of our encoder and adapter, by which a model of ours is recognised.
        names: of the tensors.
        nodes: their configuration and the settings of their pictures -> our `model:` nodes.
        config: our model -> arguments of their configuration, without the language model.
        processor: our model, its tokenizer and the string of an image's places -> their processor, or what of it reads
            pictures.
    """

    model_type: str
    model_class: str
    parts: tuple[tuple[str, ...], str]
    names: Names
    nodes: Callable[[Any, Mapping[str, Any]], Tree]
    config: Callable[[UnifiedModel], Tree]
    processor: Callable[[UnifiedModel, Any, str], Any]


def arguments(config: Any) -> Tree:
    """A configuration of transformers as plain arguments with its `model_type`."""
    settings = config.to_diff_dict()
    return {"model_type": config.model_type} | {k: v for k, v in settings.items() if k not in _NOT_ARGUMENTS}


def backbone_node(config: Any, dtype: Any = None, tied: bool | None = None) -> Tree:
    """Our node of their language model; `tied` where the whole model says whether its two tables are one."""
    settings = arguments(config) | ({} if tied is None else {"tie_word_embeddings": tied})
    return {"name": "huggingface", "config": settings, "dtype": str(dtype or "float32").removeprefix("torch.")}


def fit_of(pixels: Mapping[str, Any]) -> str:
    """How their image processor makes a picture square, in our words."""
    if pixels.get("do_pad"):
        return "pad"
    return "crop" if pixels.get("do_center_crop", True) else "stretch"


def pixel_settings(model: UnifiedModel) -> Tree:
    """The same for their image processor."""
    preprocess: Any = model.encoders["image"].preprocess
    height, width = preprocess.size
    square = {"height": height, "width": width}
    return {
        "size": square if preprocess.fit == "stretch" else {"shortest_edge": min(height, width)},
        "crop_size": square,
        "do_center_crop": preprocess.fit == "crop",
        "do_pad": preprocess.fit == "pad",
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def require_pixels(model: UnifiedModel, pixels: Mapping[str, Any], source: str) -> None:
    """Refuse a folder whose pictures are normalised otherwise than our encoder would.

    Raises:
        CheckpointError: with both numbers.
    """
    preprocess: Any = model.encoders["image"].preprocess
    for key, ours in (("image_mean", preprocess.mean), ("image_std", preprocess.std)):
        theirs = tuple(pixels.get(key) or ours)
        if any(abs(a - b) > 1e-4 for a, b in zip(ours, theirs, strict=True)):
            raise CheckpointError(f"{source} normalises pictures with {key} {theirs}, our encoder with {ours}")


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    lacking: tuple[str, ...] = (),
    idle: tuple[str, ...] = (),
) -> None:
    """Copy tensors into a module by name, after all differences are known. Sides of length one don't matter.

    Args:
        module: to fill.
        tensors: by the module's names.
        source: of the tensors, for messages.
        lacking: beginnings of names that need not be among the tensors.
        idle: beginnings of names that need not be in the module.

    Raises:
        CheckpointError: missing, unknown or otherwise shaped tensors; all are named.
    """
    wanted = module.state_dict(keep_vars=True)
    given = {name: as_shaped(tensor, wanted.get(name)) for name, tensor in tensors.items()}
    report_differences(
        source,
        [name for name in absent_tensors(module, given) if not name.startswith(lacking)],
        [name for name in given if name not in wanted and not name.startswith(idle)],
        reshaped_tensors(given, wanted),
    )
    with torch.no_grad():
        for name in given.keys() & wanted.keys():
            wanted[name].copy_(given[name])


def as_shaped(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """The tensor in the wanted shape, if sides of length one are all that differs."""
    alike = wanted is not None and _bare(tensor.shape) == _bare(wanted.shape)
    return tensor.reshape(wanted.shape) if alike else tensor  # type: ignore[union-attr]


def absent_tensors(module: nn.Module, given: Mapping[str, Tensor]) -> list[str]:
    """First names of the module's tensors that are given under none of their names."""
    return [first for first, names in _names_of(module).items() if given.keys().isdisjoint(names)]


def reshaped_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[tuple[str, Any, Any]]:
    """Name, given and wanted shape where they differ."""
    pairs = {name: (given[name].shape, wanted[name].shape) for name in given.keys() & wanted.keys()}
    return [(name, has, wants) for name, (has, wants) in pairs.items() if has != wants]


def report_differences(source: str, absent: Any, strange: Any, reshaped: Any) -> None:
    """Raise what doesn't fit, all together.

    Raises:
        CheckpointError: if any of the three lists holds something.
    """
    lines = [f"{name}: missing" for name in sorted(absent)]
    lines += [f"{name}: has no place in the model" for name in sorted(strange)]
    lines += [f"{name}: shape {list(has)}, the model has {list(wants)}" for name, has, wants in sorted(reshaped)]
    if lines:
        shown = "\n  ".join(lines[:20])
        raise CheckpointError(f"the tensors of {source} don't fit ({len(lines)} differences):\n  {shown}")


def _names_of(module: nn.Module) -> dict[str, list[str]]:
    """First name -> all names of every tensor of the state dict; tied ones once."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return {found[0]: found for found in names.values()}


def _bare(shape: torch.Size) -> list[int]:
    return [side for side in shape if side != 1]
