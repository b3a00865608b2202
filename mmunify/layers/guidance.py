"""Classifier-free guidance: what a network answers when it is told more and more."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmunify.errors import UserError
from mmunify.layers.denoising import Known, Network


def climb(answers: Sequence[Tensor], strengths: Sequence[float]) -> Tensor:
    """answer_0 + sum of strength_j (answer_j - answer_(j-1)): one strength per rung of knowledge.

    Two rungs are the guidance of https://arxiv.org/abs/2207.12598, three that of InstructPix2Pix
    (https://arxiv.org/abs/2211.09800): nothing, the source, source and condition. The weights of the answers sum to
    one, so it makes no difference whether noise, velocities or predicted data are guided.
    """
    guided = answers[0]
    for low, high, strength in zip(answers, answers[1:], strengths, strict=False):
        guided = guided + strength * (high - low)
    return guided


def guided(network: Network, rungs: Sequence[Known], strengths: Sequence[float]) -> tuple[Network, Known]:
    """A network that answers with guidance, and what it is told: all rungs in one batch.

    Args:
        network: answers for a noisy sample.
        rungs: what it is told, from nothing to everything.
        strengths: one per step between rungs; where all are 1, the highest rung is asked alone.
    """
    if all(strength == 1 for strength in strengths):
        return network, rungs[-1]
    known = {name: torch.cat([rung[name] for rung in rungs]) for name in rungs[0]}

    def answer(sample: Tensor, time: Tensor, known: Known) -> Float[Tensor, "K *shape"]:
        count = len(rungs)
        output = network(sample.repeat(count, *[1] * (sample.ndim - 1)), time.repeat(count), known)
        return climb(output.chunk(count), strengths)

    return answer, known


def read_strengths(given: Mapping[str, float], defaults: Mapping[str, float], owner: str) -> dict[str, float]:
    """The strengths of a part, with what a call overrides.

    Raises:
        UserError: a strength that the part doesn't have.
    """
    unknown = sorted(given.keys() - defaults.keys())
    if unknown:
        raise UserError(f"guidance of {owner} has no strength {unknown[0]!r}; it takes {', '.join(defaults)}")
    return {**defaults, **given}
