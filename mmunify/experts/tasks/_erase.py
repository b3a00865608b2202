"""Filling the place of an object: a smooth surface through what surrounds it, with the grain of the surroundings."""

import numpy as np

from mmunify.errors import UserError
from mmunify.experts.tasks._matte import Matte, fit_background

MAX_UNKNOWN = 2500
"""Larger holes are filled at a smaller scale: biharmonic in-painting solves a linear system of this size."""

OUTLIER = 4.0
"""How many times further than most of the surroundings a pixel must lie off their plane to belong to something else."""


def erase(picture: np.ndarray, matte: Matte, seed: int) -> np.ndarray:
    """The picture (uint8 [H W 3]) without the object of a matte; nothing outside the matte's window changes.

    Args:
        picture: is left as it is.
        matte: of the object.
        seed: of the grain.

    Raises:
        UserError: the object covers the whole window, so there is nothing to fill from.
    """
    from scipy import ndimage

    window = picture[matte.window].astype(np.float32)
    reach = max(1, max(matte.alpha.shape) // 60)
    hole = ndimage.binary_dilation(matte.alpha > 0.05, iterations=reach).astype(bool)
    if (~hole).sum() < 8:
        raise UserError("the region covers the whole picture, so nothing is left to fill it from; give a smaller one")
    filled = _fill(window, hole) + _grain(window, hole, np.random.default_rng(seed))
    result = picture.copy()
    result[matte.window] = np.where(hole[..., None], np.clip(filled + 0.5, 0, 255), window).astype(np.uint8)
    return result


def _fill(window: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Smooth continuation [h w 3] of the surroundings into the hole."""
    from skimage.restoration import inpaint_biharmonic

    step = int(np.ceil(np.sqrt(hole.sum() / MAX_UNKNOWN)))
    coarse, coarse_hole = _coarser(window, hole, step) if step > 1 else (window, hole)
    unknown = _without_neighbours(coarse, coarse_hole)
    smooth = inpaint_biharmonic(coarse / 255.0, unknown, channel_axis=-1) * 255
    known = coarse[~unknown]
    smooth = np.clip(smooth, known.min(0), known.max(0))
    return _finer(smooth, window.shape[:2]) if step > 1 else smooth


def _without_neighbours(window: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """What may not be continued into the hole: the hole itself, and objects beside it before a smooth background."""
    background = fit_background(window, ~hole)
    distance = np.linalg.norm(window - background, axis=-1)
    others = ~hole & (distance > OUTLIER * np.median(distance[~hole]))
    return hole | others if others.sum() < 0.3 * (~hole).sum() else hole


def _coarser(window: np.ndarray, hole: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of the known pixels over blocks of `step` x `step`; a block without any is unknown."""
    rows, columns = (np.arange(0, side, step) for side in hole.shape)
    known = np.add.reduceat(np.add.reduceat((~hole).astype(np.float32), rows, 0), columns, 1)
    total = np.add.reduceat(np.add.reduceat(window * ~hole[..., None], rows, 0), columns, 1)
    return total / np.maximum(known, 1)[..., None], known == 0


def _finer(smooth: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    from skimage.transform import resize

    return np.asarray(resize(smooth, shape, order=1, mode="edge", preserve_range=True))


def _grain(window: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise [h w 3] drawn from the fine differences around the hole; edges of other objects are left out."""
    from scipy import ndimage

    known = np.asarray(ndimage.binary_erosion(~hole, border_value=1), dtype=bool)
    known = known if known.sum() >= 8 else ~hole
    fine = (window - ndimage.gaussian_filter(window, (1.5, 1.5, 0)))[known]
    strength = np.linalg.norm(fine, axis=-1)
    fine = fine[strength <= np.quantile(strength, 0.8)]
    fine = fine - fine.mean(0)
    return fine[rng.integers(len(fine), size=hole.shape)]
