"""What all structures with tensors share: they move and pin like a tensor does."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor


def _move(value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Apply the tensor method `name` ("to", "pin_memory") to every tensor inside `value`."""
    if isinstance(value, Tensor | TensorStruct):
        return getattr(value, name)(*args, **kwargs)
    if isinstance(value, Mapping):
        return {key: _move(item, name, *args, **kwargs) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_move(item, name, *args, **kwargs) for item in value)
    return value


Struct = TypeVar("Struct", bound="TensorStruct")  # not typing.Self: the run-time checker of the tests refuses it


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStruct:
    """A structure with tensors inside: moves between devices and pins like a tensor does."""

    def to(self: Struct, *args: Any, **kwargs: Any) -> Struct:
        """Move every tensor inside, as `Tensor.to` does."""
        return replace(self, **{f.name: _move(getattr(self, f.name), "to", *args, **kwargs) for f in fields(self)})

    def pin_memory(self: Struct) -> Struct:
        """Pin every tensor inside, so that a DataLoader can copy it asynchronously."""
        return replace(self, **{f.name: _move(getattr(self, f.name), "pin_memory") for f in fields(self)})
