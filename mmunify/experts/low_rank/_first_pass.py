"""A pass without low-rank terms before every forward, for gates that read the last hidden states (X-LoRA)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, current_tokens, use_tokens
from mmunify.experts.low_rank._inject import without_low_rank

_TWINS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Key/value cache of a model -> the cache of its first passes, which must not see keys of the tuned model."""

_CACHES = ("cache", "past_key_values")


def add_first_pass(module: nn.Module) -> None:
    """Let `module` run twice: without low-rank terms and without gradients, then as it is.

    The second run finds the last hidden states of the first in its token context.
    """
    module.forward = partial(_forward_twice, module, type(module).forward)


def hidden_dim(module: nn.Module) -> int:
    """Width of the last hidden states of a backbone or of a transformers model.

    Raises:
        UserError: the module is neither.
    """
    dim = getattr(module, "dim", None) or getattr(getattr(module, "config", None), "hidden_size", None)
    if isinstance(dim, int):
        return dim
    raise UserError(
        f"gate_input hidden reads the last hidden states of the module that is tuned, but {type(module).__name__} "
        "has neither `dim` nor `config.hidden_size`; tune the backbone"
    )


def _forward_twice(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with without_low_rank(module), torch.no_grad():
        first = forward(module, *args, **_with_own_cache(module, kwargs))
    tokens = replace(current_tokens() or TokenContext(), hidden=_last_hidden(first))
    with use_tokens(tokens):
        return forward(module, *args, **kwargs)


def _with_own_cache(module: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with a cache of the first pass in place of the model's, cut to the same length."""
    given = {name: kwargs[name] for name in _CACHES if kwargs.get(name) is not None}
    return {**kwargs, **{name: _twin(module, cache) for name, cache in given.items()}}


def _twin(module: nn.Module, cache: Any) -> Any:
    if cache not in _TWINS:
        make = getattr(module, "new_cache", type(cache))
        _TWINS[cache] = make()
    twin, length = _TWINS[cache], cache.get_seq_length()
    surplus = twin.get_seq_length() - length
    if surplus < 0:
        raise UserError(
            f"gate_input hidden: the cache holds {length} positions, of which only {length + surplus} went through "
            "this model's first pass; start from an empty cache"
        )
    if surplus:
        twin.crop(-surplus)
    return twin


def _last_hidden(out: Any) -> Tensor:
    found = out if isinstance(out, Tensor) else getattr(out, "last", getattr(out, "last_hidden_state", None))
    if not isinstance(found, Tensor) or found.dim() != 3:
        raise UserError(f"gate_input hidden needs states [B T D] from the tuned module, got {type(out).__name__}")
    return found
