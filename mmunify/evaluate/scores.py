"""Metrics as pure functions of one prediction and its ground truth; no model, no expert, no average."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from mmunify.evaluate.statistics import Measure, mean, ratio
from mmunify.types import Box

PSNR_CAP = 100.0
"""dB given to identical pixels, whose PSNR is infinite: a mean over pictures must stay finite."""

Picture = UInt8[np.ndarray, "H W 3"]


def normalise(text: str) -> str:
    """Lower case, single spaces, no full stop at the end: what exact match and accuracy compare."""
    return re.sub(r"\s+", " ", text).strip().lower().rstrip(".").rstrip()


def exact_match(answer: str, truth: str) -> bool:
    """Whether two texts are equal after `normalise`."""
    return normalise(answer) == normalise(truth)


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1); an empty or reversed box has no area."""

    def area(box: Sequence[float]) -> float:
        return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)

    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    inside = area((x0, y0, min(first[2], second[2]), min(first[3], second[3])))
    union = area(first) + area(second) - inside
    return inside / union if union > 0 else 0.0


def is_located(answer: Box | None, truth: Box, threshold: float = 0.5) -> bool:
    """P@0.5 of referring comprehension: IoU **greater** than the threshold, as in Shikra; no box is a miss.

    lmms-eval accepts IoU equal to 0.5 as well; the two differ only on exact ties.
    """
    return answer is not None and box_iou(answer, truth) > threshold


def mask_overlap(answer: Bool[np.ndarray, "H W"] | None, truth: Bool[np.ndarray, "H W"]) -> tuple[float, float]:
    """Pixels of intersection and of union; no answer counts as an empty mask."""
    if answer is None:
        answer = np.zeros_like(truth)
    return float((answer & truth).sum()), float((answer | truth).sum())


def cumulative_iou(overlaps: Sequence[tuple[float, float]], seed: int = 0) -> Measure:
    """cIoU of LISA: sum of intersections / (sum of unions + 1e-10) over all expressions."""
    return ratio(overlaps, seed, epsilon=1e-10)


def general_iou(overlaps: Sequence[tuple[float, float]], seed: int = 0) -> Measure:
    """gIoU of LISA: mean of I / (U + 1e-5) per expression; nothing there and nothing found counts as 1."""
    return mean([i / (u + 1e-5) + float(u == 0) for i, u in overlaps], seed)


def _psnr(first: np.ndarray, second: np.ndarray) -> float:
    """dB of two arrays with values in 0..1."""
    error = float(np.mean((first - second) ** 2)) if first.size else 0.0
    return PSNR_CAP if error == 0 else min(float(-10 * np.log10(error)), PSNR_CAP)


def psnr(first: Picture, second: Picture) -> float:
    """Peak signal-to-noise ratio of two pictures in dB, capped at `PSNR_CAP`."""
    return _psnr(first / 255.0, second / 255.0)


def background_psnr(source: Picture, edited: Picture, mask: Bool[np.ndarray, "H W"]) -> float:
    """PSNR over the pixels outside `mask` **alone**: the size of the mask doesn't change what is measured."""
    return _psnr(source[~mask] / 255.0, edited[~mask] / 255.0)


def background_psnr_smartedit(source: Picture, edited: Picture, mask: Bool[np.ndarray, "H W"]) -> float:
    """Background PSNR as the public SmartEdit evaluation computes it, to compare with published rows.

    Both pictures are resized to 256x256 (bicubic; the mask by nearest neighbour), set to zero inside the mask, and
    compared over the **whole** frame. The zeros count as perfect pixels, so the number rises with the mask's area.
    """
    from PIL import Image

    keep = ~np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST))[..., None]

    def prepare(picture: np.ndarray) -> np.ndarray:
        large = Image.fromarray(picture).resize((256, 256), Image.Resampling.BICUBIC)
        return np.asarray(large) / 255.0 * keep

    return _psnr(prepare(source), prepare(edited))
