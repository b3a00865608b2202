"""What gates may know of every token, on its way past a model that has no argument for it.

One `ContextVar` carries it: no layer in between needs to pass anything on, threads don't see each other's,
and nothing is left behind after the forward pass.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace

from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from mmunify.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenContext:
    """The tokens that a backbone is about to read; None = not known.

    Attributes:
        valid: False at padding and holes: such tokens count in no balance loss and no statistic.
        task: task index of every token (its document's row of the task table).
        modality: 0 for text, 1 + index of the node for the slots of a medium or an output.
        document: id of a token's document inside its row; None = one document per row.
        recomputing: activation checkpointing runs a forward again; set by `checkpoint_context_fn` alone.
    """

    valid: Bool[Tensor, "B T"] | None = None
    task: Int[Tensor, "B T"] | None = None
    modality: Int[Tensor, "B T"] | None = None
    document: Int[Tensor, "B T"] | None = None
    recomputing: bool = False

    def flat(self, name: str, num_tokens: int) -> Shaped[Tensor, "n"] | None:
        """One of the fields, flattened, for a layer that saw `num_tokens` tokens.

        Raises:
            UserError: the layer saw another number of tokens than the context describes.
        """
        values = getattr(self, name)
        if values is None or values.numel() == num_tokens:
            return values if values is None else values.flatten()
        raise UserError(
            f"the token context describes {tuple(values.shape)} = {values.numel()} tokens, but the gate saw "
            f"{num_tokens}; match only linears that see every token of the backbone, or use balance: none"
        )


_CURRENT: ContextVar[TokenContext | None] = ContextVar("mmunify_tokens", default=None)


def current_tokens() -> TokenContext | None:
    """The context that is installed here, if there is one."""
    return _CURRENT.get()


def is_recomputing() -> bool:
    """Whether activation checkpointing is running this forward for the second time."""
    tokens = _CURRENT.get()
    return tokens is not None and tokens.recomputing


@contextmanager
def use_tokens(tokens: TokenContext | None) -> Iterator[None]:
    """Install `tokens` for the layers that run inside the `with` block."""
    before = _CURRENT.set(tokens)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def checkpoint_context_fn() -> tuple[AbstractContextManager, AbstractContextManager]:
    """The `context_fn` of `torch.utils.checkpoint`: the recomputation sees the tokens that the forward saw.

    Without it a second forward before the backward would leave its own tokens to the recomputation of the first,
    and the gradients would be silently wrong. Checkpointing must be the non-reentrant kind.
    """
    tokens = _CURRENT.get() or TokenContext()
    return nullcontext(), use_tokens(replace(tokens, recomputing=True))
