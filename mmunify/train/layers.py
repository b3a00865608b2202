"""Transformer layers: found in any backbone or tower, run again in the backward pass, compiled.

Both change the `forward` of a layer and nothing else, so that names, hooks and checkpoints stay as they are; both end
with the stage. Compilation lies inside recomputation: the tokens that gates read are installed anew around it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmunify.experts.low_rank._context import checkpoint_context_fn


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What is done with every layer.

    Attributes:
        recompute: whether activations are thrown away and made again in the backward pass: less memory, a third more
            work.
        compile: backend of torch.compile ("inductor", "aot_eager" ...); empty = no compilation.
    """

    recompute: bool = False
    compile: str = ""

    def apply(self, model: nn.Module) -> None:
        """Change the layers of a model."""
        for layer in learning_layers(model) if self.recompute or self.compile else ():
            if self.compile:
                layer.forward = torch.compile(layer.forward, backend=self.compile, dynamic=True)
            if self.recompute:
                layer.forward = partial(_recomputed, layer.forward)

    def undo(self, model: nn.Module) -> None:
        """Give the layers their own forward back."""
        for layer in transformer_layers(model):
            vars(layer).pop("forward", None)


def transformer_layers(module: nn.Module) -> list[nn.Module]:
    """The outermost blocks that stand in a list, each with several children that have weights."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and any(map(_is_block, child)):
            found += [block for block in child if _is_block(block)]
        else:
            found += transformer_layers(child)
    return found


def backbone_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the backbone, if there is one."""
    backbone = getattr(model, "backbone", None)
    return transformer_layers(backbone) if backbone is not None else []


def learning_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of the backbone and of the encoders that learn: where activations are kept for a backward pass."""
    yield from backbone_layers(model)
    for encoder in getattr(model, "encoders", nn.ModuleDict()).values():
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            yield from transformer_layers(encoder)


def _is_block(module: nn.Module) -> bool:
    return sum(1 for child in module.children() if next(child.parameters(), None) is not None) > 1


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=checkpoint_context_fn, **kwargs)
