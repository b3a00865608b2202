"""What gates may know of every token, on its way past a model that has no argument for it.

One `ContextVar` carries it: no layer in between needs to pass anything on, threads don't see each other's,
and nothing is left behind after the forward pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mmunify.errors import UserError
from mmunify.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenContext:
    """The tokens that a backbone is about to read; None = not known.

    Attributes:
        valid: False at padding and holes: such tokens count in no balance loss and no statistic.
        task: task index of every token (a row of the task table): its turn's, or its document's.
        modality: 0 for text, 1 + index of the node for the slots of a medium or an output.
        document: id of a token's document inside its row; None = one document per row.
        response: True at the tokens that are learned (what the assistant says).
        hidden: last hidden states of a pass without low-rank terms, for gates that read them.
        recomputing: activation checkpointing runs a forward again; set by `checkpoint_context_fn` alone.
    """

    valid: Bool[Tensor, "B T"] | None = None
    task: Int[Tensor, "B T"] | None = None
    modality: Int[Tensor, "B T"] | None = None
    document: Int[Tensor, "B T"] | None = None
    response: Bool[Tensor, "B T"] | None = None
    hidden: Float[Tensor, "B T D"] | None = None
    recomputing: bool = False

    @classmethod
    def of(cls, batch: Batch, nodes: Sequence[str] = ()) -> "TokenContext":
        """All that a batch tells of its tokens.

        Args:
            batch: about to be read.
            nodes: "encoders.image", "heads.image" ...: the slots of node i have modality i + 1. The order is the
                model's, not the batch's, so that an id always means the same.
        """
        document, modality = batch.attention.document, torch.zeros_like(batch.input_ids)
        for number, node in enumerate(nodes, start=1):
            group, _, name = node.partition(".")
            items = (batch.media if group == "encoders" else batch.outputs).get(name)
            if items is not None and items.slots is not None:
                modality = modality.masked_fill(items.slots, number)
        return cls(
            valid=batch.attention.valid,
            task=batch.task[document.clamp(min=0)] if batch.turn_task is None else batch.turn_task,
            modality=modality,
            document=document,
            response=batch.labels != -100,
        )

    def flat(self, name: str, num_tokens: int) -> Shaped[Tensor, "n *width"] | None:
        """One of the fields, rows and positions flattened, for a layer that saw `num_tokens` tokens.

        Raises:
            UserError: the layer saw another number of tokens than the context describes.
        """
        values = getattr(self, name)
        if values is None or values.shape[0] * values.shape[1] == num_tokens:
            return values if values is None else values.flatten(0, 1)
        rows, positions = values.shape[:2]
        raise UserError(
            f"the token context describes ({rows}, {positions}) = {rows * positions} tokens, but the gate saw "
            f"{num_tokens}; match only linears that see every token of the backbone, or use balance: none"
        )


class _Traced:
    """The context as torch.compile can read it: dynamo knows attributes of a global, but no `ContextVar`."""

    tokens: TokenContext | None = None


_CURRENT: ContextVar[TokenContext | None] = ContextVar("mmunify_tokens", default=None)
_TRACED = _Traced()


def current_tokens() -> TokenContext | None:
    """The context that is installed here, if there is one. Compiled code sees the latest one of the process."""
    return _TRACED.tokens if torch.compiler.is_compiling() else _CURRENT.get()


def is_recomputing() -> bool:
    """Whether activation checkpointing is running this forward for the second time."""
    tokens = _CURRENT.get()
    return tokens is not None and tokens.recomputing


@contextmanager
def use_tokens(tokens: TokenContext | None) -> Iterator[None]:
    """Install `tokens` for the layers that run inside the `with` block."""
    before, traced_before = _CURRENT.set(tokens), _TRACED.tokens
    _TRACED.tokens = tokens
    try:
        yield
    finally:
        _CURRENT.reset(before)
        _TRACED.tokens = traced_before


def checkpoint_context_fn() -> tuple[AbstractContextManager, AbstractContextManager]:
    """The `context_fn` of `torch.utils.checkpoint`: the recomputation sees the tokens that the forward saw.

    Without it a second forward before the backward would leave its own tokens to the recomputation of the first,
    and the gradients would be silently wrong. Checkpointing must be the non-reentrant kind.
    """
    tokens = _CURRENT.get() or TokenContext()
    return nullcontext(), use_tokens(replace(tokens, recomputing=True))
