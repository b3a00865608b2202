"""Do tasks pull the same weights in the same direction? The cosine between their gradients, in one step."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist

from mmunify.checkpoint.shards import is_split, local_rows
from mmunify.train.ranks import exchange, num_ranks
from mmunify.train.totals import by_document
from mmunify.types import Batch, StepReport

LossOf = Callable[[Batch, StepReport], Tensor]


def gradient_cosines(
    model: nn.Module, batches: Sequence[Batch], tasks: Sequence[str], backward: Callable[[LossOf], None]
) -> dict[str, float]:
    """Cosine between the gradients of every two tasks of a step (https://arxiv.org/abs/2001.06782), over the weights
    that both reach; -1 = what helps one harms the other.

    Every task's gradient takes a forward and a backward pass of its own over the whole step, and is held until the end.
    What counts are the losses that heads tell document by document, those of words.

    Args:
        model: whose learning parameters are looked at; their gradients are empty afterwards.
        batches: of the step on this rank.
        tasks: names of the rows of the task table.
        backward: runs the model on all batches and sums the gradients of what the given function makes of each, over
            batches and ranks.

    Returns:
        "gradient_cosine/A/B" for every two tasks of the step that reach a weight in common; all ranks have the same.
    """
    found = sorted(set.union(*exchange([{task for batch in batches for task in batch.task.tolist()}])))
    if len(found) < 2:
        return {}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    products = _products(learning, [_gradient(learning, backward, task) for task in found])
    pairs = list(combinations(range(len(found)), 2))
    names = [f"gradient_cosine/{tasks[found[a]]}/{tasks[found[b]]}" for a, b in pairs]
    values = [_cosine(products, *pair) for pair in pairs]
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _gradient(learning: Sequence[nn.Parameter], backward: Callable[[LossOf], None], task: int) -> list[Tensor | None]:
    backward(lambda batch, report: _task_loss(batch, report, task))
    found = [parameter.grad for parameter in learning]
    for parameter in learning:
        parameter.grad = None
    return found


def _task_loss(batch: Batch, report: StepReport, task: int) -> Tensor:
    """Weighted sum over the documents of a task; everything else takes part with zero, as ranks wait for it."""
    chosen = batch.task == task
    terms = [report.weights[name] * table[0][chosen].sum() for name, table in by_document(report)]
    return sum([*terms, *(0 * value for value in (*report.losses.values(), *report.aux.values()))])  # type: ignore[return-value]


def _products(learning: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]]) -> Float[Tensor, "P n n"]:
    """Scalar products of the tasks' gradients, parameter by parameter."""
    products = torch.stack([_gram([own[p] for own in gradients], like) for p, like in enumerate(learning)])
    split = torch.tensor([is_split(parameter) for parameter in learning], device=products.device)
    if num_ranks() > 1 and bool(split.any()):  # each rank has the products of its rows
        shares = torch.where(split[:, None, None], products, torch.zeros_like(products))
        dist.all_reduce(shares)
        products = torch.where(split[:, None, None], shares, products)
    return products


def _gram(gradients: Sequence[Tensor | None], like: Tensor) -> Float[Tensor, "n n"]:
    """Of one parameter; None = no gradient."""
    zero = torch.zeros_like(local_rows(like.detach()), dtype=torch.float32)
    rows = torch.stack([(zero if grad is None else local_rows(grad).float()).flatten() for grad in gradients])
    return rows @ rows.T


def _cosine(products: Float[Tensor, "P n n"], a: int, b: int) -> float | None:
    shared = (products[:, a, a] > 0) & (products[:, b, b] > 0)
    dot, first, second = (float(products[shared, i, j].sum()) for i, j in ((a, b), (a, a), (b, b)))
    return dot / (first * second) ** 0.5 if bool(shared.any()) else None
