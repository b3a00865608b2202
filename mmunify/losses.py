"""Losses as pure functions: tensors in, a scalar *sum* over items out. The caller divides by its own count.

An item is what the count counts: a token, a mask, a box, a picture. Inside an item the mean is taken.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmunify.errors import UserError


def masked_sum(values: Float[Tensor, "*items"], mask: Bool[Tensor, "*items"] | None = None) -> Float[Tensor, ""]:
    """Sum of one value per item, over the items where `mask` is True; NaN elsewhere does no harm."""
    if mask is not None:
        values = torch.where(mask, values, torch.zeros_like(values))
    return values.sum()


def feature_mse(
    prediction: Float[Tensor, "*items E"],
    target: Float[Tensor, "*items E"],
    mask: Bool[Tensor, "*items"] | None = None,
) -> Float[Tensor, ""]:
    """Squared difference, mean over the features of an item."""
    return masked_sum((prediction - target).square().mean(dim=-1), mask)


def cosine(
    prediction: Float[Tensor, "*items E"],
    target: Float[Tensor, "*items E"],
    mask: Bool[Tensor, "*items"] | None = None,
) -> Float[Tensor, ""]:
    """One minus the cosine of the angle between prediction and target, per item."""
    return masked_sum(1 - F.cosine_similarity(prediction, target, dim=-1), mask)


def euclidean(
    prediction: Float[Tensor, "*items E"],
    target: Float[Tensor, "*items E"],
    mask: Bool[Tensor, "*items"] | None = None,
) -> Float[Tensor, ""]:
    """Length of the difference, per item; not squared (GILL, NExT-GPT). Its gradient is zero where they are equal."""
    squared = (prediction - target).square().sum(dim=-1)
    tiny = torch.finfo(squared.dtype).tiny
    return masked_sum(torch.where(squared > 0, squared.clamp(min=tiny).sqrt(), 0.0), mask)


def contrastive(
    left: Float[Tensor, "K E"],
    right: Float[Tensor, "K E"],
    scale: Float[Tensor, ""],
    all_left: Float[Tensor, "A E"] | None = None,
    all_right: Float[Tensor, "A E"] | None = None,
    first: int = 0,
) -> Float[Tensor, ""]:
    """Mean of both directions of InfoNCE (https://arxiv.org/abs/2103.00020), summed over the K pairs.

    This is no sum over independent items: every other pair is a negative.

    Args:
        left, right: unit vectors of the pairs that count here.
        scale: what similarities are multiplied with.
        all_left, all_right: of the pairs of all processes; None = no others.
        first: place of the first own pair among them.
    """
    wanted = torch.arange(first, first + len(left), device=left.device)
    across = scale * left @ (right if all_right is None else all_right).T
    back = scale * right @ (left if all_left is None else all_left).T
    return (F.cross_entropy(across, wanted, reduction="sum") + F.cross_entropy(back, wanted, reduction="sum")) / 2


def dice(
    logits: Float[Tensor, "K *pixels"], target: Float[Tensor, "K *pixels"], smooth: float = 1.0
) -> Float[Tensor, ""]:
    """One minus the soft Dice overlap of each mask (https://arxiv.org/abs/1606.04797), on probabilities.

    Args:
        smooth: added above and below, so that two empty masks agree (0.001 is the published loss of LISA and GLaMM).
    """
    probability, truth = logits.sigmoid().flatten(1), target.flatten(1)
    overlap = (probability * truth).sum(1)
    return (1 - (2 * overlap + smooth) / (probability.sum(1) + truth.sum(1) + smooth)).sum()


def bce(logits: Float[Tensor, "K *pixels"], target: Float[Tensor, "K *pixels"]) -> Float[Tensor, ""]:
    """Binary cross-entropy, mean over the pixels of a mask."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1).sum()


def l1(prediction: Float[Tensor, "K *values"], target: Float[Tensor, "K *values"]) -> Float[Tensor, ""]:
    """Absolute difference, mean over the values of an item."""
    return (prediction - target).abs().flatten(1).mean(1).sum()


def smooth_l1(
    prediction: Float[Tensor, "K *values"], target: Float[Tensor, "K *values"], beta: float = 1.0
) -> Float[Tensor, ""]:
    """Absolute difference, quadratic below `beta`, mean over the values of an item."""
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta).flatten(1).mean(1).sum()


def giou(prediction: Float[Tensor, "K 4"], target: Float[Tensor, "K 4"]) -> Float[Tensor, ""]:
    """One minus the generalised IoU (https://arxiv.org/abs/1902.09630) of boxes (x0, y0, x1, y1), in 0..2 per box."""
    overlap = _area(torch.maximum(prediction[:, :2], target[:, :2]), torch.minimum(prediction[:, 2:], target[:, 2:]))
    hull = _area(torch.minimum(prediction[:, :2], target[:, :2]), torch.maximum(prediction[:, 2:], target[:, 2:]))
    union = _area(prediction[:, :2], prediction[:, 2:]) + _area(target[:, :2], target[:, 2:]) - overlap
    tiny = torch.finfo(prediction.dtype).tiny
    return (1 - overlap / union.clamp(min=tiny) + (hull - union) / hull.clamp(min=tiny)).sum()


def ssim(prediction: Float[Tensor, "K C H W"], target: Float[Tensor, "K C H W"]) -> Float[Tensor, ""]:
    """One minus the structural similarity of each picture; pixels in 0..1."""
    return (1 - structural_similarity(prediction, target)).sum()


def structural_similarity(
    prediction: Float[Tensor, "K C H W"], target: Float[Tensor, "K C H W"], size: int = 11, sigma: float = 1.5
) -> Float[Tensor, "K"]:
    """SSIM (Wang et al. 2004) of pictures in 0..1, over windows that lie inside; 1 = equal.

    Args:
        size: of the Gaussian window.
        sigma: of the Gaussian window.

    Raises:
        UserError: pictures smaller than the window.
    """
    down, across = (_window(length, size, sigma).to(prediction) for length in prediction.shape[2:])
    both = torch.stack([prediction, target, prediction**2, target**2, prediction * target])
    mean_p, mean_t, square_p, square_t, product = down @ both @ across.T
    c1, c2 = 0.01**2, 0.03**2  # the paper's constants for a range of one
    covariance = product - mean_p * mean_t
    spread = (square_p - mean_p**2).clamp(min=0) + (square_t - mean_t**2).clamp(min=0)
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return (luminance * (2 * covariance + c2) / (spread + c2)).flatten(1).mean(1)


def _area(low: Float[Tensor, "K 2"], high: Float[Tensor, "K 2"]) -> Float[Tensor, "K"]:
    return (high - low).clamp(min=0).prod(dim=1)


def _window(length: int, size: int, sigma: float) -> Float[Tensor, "inside length"]:
    """A Gaussian blur along one side as a matrix: on a CPU several times faster than a convolution."""
    if length < size:
        raise UserError(f"structural similarity looks through windows of {size} pixels; the picture has {length}")
    places = torch.arange(length, dtype=torch.float64)
    distance = places - places[: length - size + 1, None] - (size - 1) / 2
    curve = (-(distance**2) / (2 * sigma**2)).exp() * (distance.abs() <= (size - 1) / 2)
    return curve / curve.sum(dim=1, keepdim=True)
