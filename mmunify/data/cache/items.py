"""Features of a batch -> of single items, as they are stored, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmunify.types import Features

LAYER = "layers."


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """What an encoder said of one medium, without the padding of its batch.

    Attributes:
        tensors: "tokens" [n E], "pooled" [P], "layers.INDEX" [n E], "centers" [F 2].
        facts: extent of the medium, grid, num_frames, and whether there was a mask; plain numbers.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def extent(self) -> tuple[int, int]:
        """Original (width, height) of the medium."""
        return self.facts["extent"][0], self.facts["extent"][1]

    @property
    def num_bytes(self) -> int:
        """Of its tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def split_features(features: Features, extents: Sequence[tuple[int, int]]) -> list[StoredItem | None]:
    """One item per medium; None where real tokens don't come first, so that padding can't be told apart."""
    return [_item(features, index, extent) for index, extent in enumerate(extents)]


def join_items(items: Sequence[StoredItem]) -> Features:
    """Features of a batch, padded with zeros to its longest item, as encoders do."""
    tokens = [item.tensors["tokens"] for item in items]
    lengths = torch.tensor([len(each) for each in tokens])
    masked = any(item.facts["masked"] for item in items) or bool((lengths != lengths[0]).any())
    names = [name for name in items[0].tensors if name.startswith(LAYER)]
    return Features(
        tokens=pad_sequence(tokens, batch_first=True),
        mask=torch.arange(int(lengths.max()))[None] < lengths[:, None] if masked else None,
        grid=_common([_pair(item.facts["grid"]) for item in items]),
        pooled=torch.stack([item.tensors["pooled"] for item in items]) if "pooled" in items[0].tensors else None,
        layers={int(name.removeprefix(LAYER)): _padded(items, name) for name in names},
        num_frames=_common([item.facts["num_frames"] for item in items]),
        centers=_padded(items, "centers") if "centers" in items[0].tensors else None,
    )


def _item(features: Features, index: int, extent: tuple[int, int]) -> StoredItem | None:
    length = features.tokens.shape[1]
    mask = None if features.mask is None else features.mask[index]
    real = length if mask is None else int(mask.sum())
    if mask is not None and not bool(mask[:real].all()):
        return None
    tensors = {"tokens": features.tokens[index, :real]}
    if features.pooled is not None:
        tensors["pooled"] = features.pooled[index]
    if features.centers is not None:
        tensors["centers"] = features.centers[index, : round(features.centers.shape[1] * real / max(length, 1))]
    for layer, states in features.layers.items():  # a layer may have a class token more, per frame
        tensors[f"{LAYER}{layer}"] = states[index, : round(states.shape[1] * real / max(length, 1))]
    facts = {
        "extent": list(extent),
        "grid": features.grid,
        "num_frames": features.num_frames,
        "masked": mask is not None,
    }
    return StoredItem(
        tensors={name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, facts=facts
    )


def _padded(items: Sequence[StoredItem], name: str) -> Tensor:
    return pad_sequence([item.tensors[name] for item in items], batch_first=True)


def _pair(grid: Sequence[int] | None) -> tuple[int, int] | None:
    return None if grid is None else (grid[0], grid[1])


def _common(values: Sequence[Any]) -> Any:
    """What all items say; None where they differ."""
    return values[0] if all(value == values[0] for value in values) else None
