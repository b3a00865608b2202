"""Auxiliary losses of gates: they keep a gate from using few of its experts, or its logits from growing.

Squared coefficients of variation are no sums over tokens. So all losses gather their statistics over all ranks, unless
told not to: every rank then holds the loss of the global batch, and averaging its gradients over ranks (as DDP and
FSDP do) gives the gradient of that loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext
from mmunify.experts.low_rank._reduce import sum_over_ranks
from mmunify.registry import did_you_mean

Balance = Callable[..., Tensor]
"""(weights [*rows X], tokens, logits [*rows X]) -> scalar; only tokens that are `valid` count."""


def make_balance(
    name: str, num_experts: int, delta: int | float, tasks: Sequence[int], over_ranks: bool = True
) -> Balance | None:
    """The auxiliary loss of that name, None for "none".

    Args:
        name: "none", "cv_squared", "localized_balance", "switch", "z" or "entropy".
        num_experts: of the layer, X.
        delta: see `localized`.
        tasks: see `localized`.
        over_ranks: whether the loss is that of the global batch, or each rank's own.

    Raises:
        UserError: no such loss, or an odd number of experts for "localized_balance".
    """
    losses = {
        "none": None,
        "cv_squared": cv_squared,
        "localized_balance": partial(localized, delta=delta, tasks=tuple(tasks)),
        "switch": switch,
        "z": z,
        "entropy": entropy,
    }
    if name not in losses:
        raise UserError(f"no balance loss named {name!r}{did_you_mean(name, list(losses))} Known: {', '.join(losses)}")
    if name == "localized_balance" and num_experts % 2:
        raise UserError(f"localized_balance halves the experts, so num_experts must be even, got {num_experts}")
    loss = losses[name]
    return None if loss is None else partial(loss, over_ranks=over_ranks)


def counted(tokens: TokenContext, mask: str) -> TokenContext:
    """The context with `valid` saying which tokens a loss counts.

    Args:
        tokens: of the forward.
        mask: "all", padding too (it belongs to the document before it, as in LoRAMoE's code); "non_pad"; "response",
            the tokens that are learned.

    Raises:
        UserError: "response" without knowing which tokens are learned.
    """
    if mask == "non_pad":
        return tokens
    if mask == "all":
        return tokens if tokens.valid is None else _with_padding(tokens, tokens.valid)
    if tokens.response is None:
        raise UserError("mask 'response' needs to know the learned tokens, but the token context has no response")
    return replace(tokens, valid=tokens.response if tokens.valid is None else tokens.response & tokens.valid)


def cv_squared(
    weights: Float[Tensor, "*rows X"],
    tokens: TokenContext,
    logits: Float[Tensor, "*rows X"] | None = None,
    over_ranks: bool = True,
) -> Float[Tensor, ""]:
    """Squared coefficient of variation of the experts' total weight (Shazeer et al., arXiv 1701.06538, equation 7)."""
    flat = weights.flatten(0, -2)
    valid = tokens.flat("valid", len(flat))
    kept = flat if valid is None else flat * valid[:, None]
    return _squared_cv(sum_over_ranks(kept.sum(0), over_ranks), over_ranks=False)


def localized(
    weights: Float[Tensor, "*rows X"],
    tokens: TokenContext,
    logits: Float[Tensor, "*rows X"] | None = None,
    *,
    delta: int | float,
    tasks: Sequence[int],
    over_ranks: bool = True,
) -> Float[Tensor, ""]:
    """Localized balancing of LoRAMoE (arXiv 2312.09979), as its published code computes it.

    `Q[d, n]` is the total weight of expert n in document d; `C[d, n]` is 1 + delta where the expert's half matches
    the document's type (first half: one of `tasks`; second half: any other task), else 1 - delta. The loss is
    var(Z) / mean(Z)^2 over all Z = Q * C, with the unbiased variance. Mind the sign: equal Z asks *less* weight of
    the matching half. The published code counts prompts and padding too: mask "all" does that. A conversation with
    turns of both types counts as two documents (published data have one type per document).

    Args:
        weights: of the gate.
        tokens: with the task of every token.
        logits: not used.
        delta: how far the two halves are pulled apart, 0..1.
        tasks: task indices of the type that belongs to the first half.
        over_ranks: whether documents of all ranks count.

    Raises:
        UserError: the task of the tokens is not known.
    """
    flat = weights.flatten(0, -2)
    task, valid = tokens.flat("task", len(flat)), tokens.flat("valid", len(flat))
    if tokens.task is None or task is None:
        raise UserError("localized_balance needs the task of every token, but the token context has no task ids")
    document = _number_documents(tokens.task.shape, tokens.document, flat.device)
    keep = torch.ones_like(document, dtype=torch.bool) if valid is None else valid
    matches = torch.isin(task, torch.tensor(tasks, dtype=task.dtype, device=flat.device))
    ids, owner = (2 * document + matches)[keep].unique(return_inverse=True)
    used = flat.new_zeros(len(ids), flat.shape[-1]).index_add(0, owner, flat[keep])
    in_first_half = torch.arange(flat.shape[-1], device=flat.device) < flat.shape[-1] // 2
    sign = torch.where((ids % 2 == 1)[:, None] == in_first_half, 1.0, -1.0).to(used)
    return _squared_cv((used * (1 + delta * sign)).flatten(), over_ranks)


def switch(
    weights: Float[Tensor, "*rows X"],
    tokens: TokenContext,
    logits: Float[Tensor, "*rows X"],
    over_ranks: bool = True,
) -> Float[Tensor, ""]:
    """X * sum_i f_i P_i (Switch Transformer, arXiv 2101.03961, equation 4; Mixtral's form for several experts).

    `f_i` is the share of tokens that use expert i: those with a weight above zero, or, where a gate uses all experts,
    the one with the largest weight. `P_i` is the mean of the softmax of the logits.
    """
    flat, largest = weights.flatten(0, -2), weights.flatten(0, -2).argmax(-1, keepdim=True)
    one_hot = torch.zeros_like(flat).scatter(-1, largest, 1.0)
    used = torch.where((flat > 0).all(-1, keepdim=True), one_hot, (flat > 0).to(flat))
    both = torch.cat([used, logits.flatten(0, -2).softmax(-1)], dim=-1)
    share, probability = _mean_over_tokens(both, tokens, over_ranks).chunk(2)
    return len(share) * (share * probability).sum()


def z(
    weights: Float[Tensor, "*rows X"],
    tokens: TokenContext,
    logits: Float[Tensor, "*rows X"],
    over_ranks: bool = True,
) -> Float[Tensor, ""]:
    """Mean squared log-sum-exp of the logits: keeps them small (ST-MoE, arXiv 2202.08906, equation 5)."""
    squared = logits.flatten(0, -2).logsumexp(-1, keepdim=True).square()
    return _mean_over_tokens(squared, tokens, over_ranks).squeeze(0)


def entropy(
    weights: Float[Tensor, "*rows X"],
    tokens: TokenContext,
    logits: Float[Tensor, "*rows X"],
    over_ranks: bool = True,
) -> Float[Tensor, ""]:
    """Mean entropy of the logits' softmax in nats: above zero it makes tokens choose, below zero spread."""
    log_p = logits.flatten(0, -2).log_softmax(-1)
    return _mean_over_tokens(-(log_p.exp() * log_p).sum(-1, keepdim=True), tokens, over_ranks).squeeze(0)


def _mean_over_tokens(values: Float[Tensor, "n k"], tokens: TokenContext, over_ranks: bool) -> Float[Tensor, "k"]:
    valid = tokens.flat("valid", len(values))
    counts = values.new_ones(len(values)) if valid is None else valid.to(values)
    total = sum_over_ranks(torch.cat([counts @ values, counts.sum()[None]]), over_ranks)
    return total[:-1] / total[-1].clamp(min=1)


def _with_padding(tokens: TokenContext, valid: Bool[Tensor, "B T"]) -> TokenContext:
    """Every position counts; padding takes task and document of the last token before it, or of the row's first."""
    place = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    last = place.masked_fill(~valid, -1).cummax(1).values
    first = place.masked_fill(~valid, valid.shape[1] - 1).amin(1, keepdim=True)
    source = torch.where(last < 0, first, last)
    filled = {name: getattr(tokens, name) for name in ("task", "document")}
    filled = {name: None if ids is None else ids.gather(1, source) for name, ids in filled.items()}
    return replace(tokens, valid=None, **filled)


def _number_documents(shape: torch.Size, document: Tensor | None, device: torch.device) -> Int[Tensor, "n"]:
    """A number per token [B*T] that only tokens of the same document share, over all rows."""
    row = torch.arange(shape[0], device=device)[:, None].expand(shape)
    if document is None:
        return row.flatten()
    inside = document - document.min()
    return (row * (inside.max() + 1) + inside).flatten()


def _squared_cv(values: Float[Tensor, "n"], over_ranks: bool) -> Float[Tensor, ""]:
    """var / mean^2, zero for fewer than two values; two passes, since the one-pass formula cancels."""
    count, summed = sum_over_ranks(torch.stack([values.new_tensor(len(values)), values.sum()]), over_ranks)
    mean = summed / count.clamp(min=1)
    variance = sum_over_ranks((values - mean).square().sum(), over_ranks) / (count - 1).clamp(min=1)
    return variance / (mean.square() + 1e-10)
