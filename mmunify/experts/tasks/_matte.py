"""The object inside a box, as an alpha matte: 1 on the object, 0 beside it, between on its anti-aliased edge.

Before a smooth background (a plane of colour, fitted to the ring around the box) the matte is how far a pixel lies
from the background towards the object's colour. Before a busy one, pixels are told apart by how often their colour
occurs inside and outside the box, in the manner of GrabCut (Rother et al. 2004) with a blur in place of the graph cut.
Everything happens inside a crop around the box, scaled down where it is large.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmunify.experts.tasks._pictures import pixel_box
from mmunify.types import Region

RING = 0.15
"""Width of the ring around the box, relative to the box's longer side; at least 3 pixels."""

WORK_SIDE = 320
"""Crops are scaled down to this side before they are looked at."""

SMOOTH = 4.2
"""Before a smooth background, the object differs from it this many times more than most of the ring does."""

MOST = 0.7
"""Which part of the ring "most" is: neighbours of the object may reach into the rest."""

UNIFORM = 0.25
"""Spread of the object's own colour, relative to its contrast, up to which it counts as one colour."""

SMALL = 32 * 32
"""Boxes of fewer pixels hold too few colours to tell by their frequency: their background always counts as smooth."""

COLORS, ROUNDS = 12, 3
"""Colours and rounds of the colour model of busy pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matte:
    """The object of one region.

    Attributes:
        x, y: left and top of the window in the picture, which reaches a little beyond the box.
        alpha: [h w] float32 in 0..1, of the window; 0 outside the box.
        color: [3] the object's typical colour, 0..255.
    """

    x: int
    y: int
    alpha: np.ndarray
    color: np.ndarray

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the matte covers."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def mask(self, shape: Sequence[int]) -> np.ndarray:
        """Bool[H W] of the whole picture: where the object covers at least half a pixel."""
        full = np.zeros(tuple(shape[:2]), dtype=bool)
        full[self.window] = self.alpha > 0.5
        return full


def cut_out(picture: np.ndarray, region: Region) -> Matte:
    """Find the object of a region; a region that has a mask of its own is taken at its word.

    Args:
        picture: uint8 [H W 3].
        region: box, outline or mask.

    Raises:
        UserError: the region covers no pixel.
    """
    x0, y0, x1, y1 = pixel_box(region, picture.shape)
    margin = max(3, round(RING * max(x1 - x0, y1 - y0)))
    left, top = max(x0 - margin, 0), max(y0 - margin, 0)
    right, bottom = min(x1 + margin, picture.shape[1]), min(y1 + margin, picture.shape[0])
    crop = picture[top:bottom, left:right]
    if region.mask is not None:
        alpha = _resized(np.asarray(region.mask, dtype=np.float32), picture.shape[:2])[top:bottom, left:right]
        return Matte(x=left, y=top, alpha=alpha, color=_typical_color(crop, alpha > 0.5))
    inside = np.zeros(crop.shape[:2], dtype=bool)
    inside[y0 - top : y1 - top, x0 - left : x1 - left] = True
    small = _shrunk(crop)
    alpha = _find_object(small.astype(np.float32), _resized(inside.astype(np.float32), small.shape[:2]) > 0.5)
    alpha = _confined(_resized(alpha, crop.shape[:2]), inside)
    return Matte(x=left, y=top, alpha=alpha, color=_typical_color(crop, alpha > 0.5))


def _confined(alpha: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Solid pixels stay inside the box; the anti-aliased edge may reach one pixel beyond a box that is tight."""
    from scipy import ndimage

    rim = ndimage.binary_dilation(inside, structure=np.ones((3, 3)))
    return np.where(inside, alpha, np.where(rim, np.minimum(alpha, 0.49), 0)).astype(np.float32)


def _find_object(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Alpha [h w] of the object inside a box that is True in `inside`."""
    from skimage.filters import threshold_otsu

    ring = ~inside if (~inside).sum() >= 8 else _border(inside.shape)
    background = fit_background(pixels, ring)
    distance = np.linalg.norm(pixels - background, axis=-1)
    if np.ptp(distance[inside]) == 0:
        return inside.astype(np.float32)  # nothing stands out: the whole box is the object
    core = inside & (distance > threshold_otsu(distance[inside]))
    contrast = float(np.median(distance[core]))
    if inside.sum() > SMALL and contrast < SMOOTH * np.quantile(distance[ring], MOST):
        return _by_palette(pixels, inside, ring)
    strong = core & (distance >= np.median(distance[core]))
    color = np.median(pixels[strong], axis=0)
    if np.median(np.linalg.norm(pixels[core] - color, axis=-1)) > UNIFORM * contrast:
        return _without_specks(np.clip(distance / (2 * distance[core].min()), 0, 1), inside, least=0.1)
    towards = color - background
    alpha = ((pixels - background) * towards).sum(-1) / np.maximum((towards**2).sum(-1), 1e-6)
    return _without_specks(np.clip((alpha - 0.5) * 1.25 + 0.5, 0, 1), inside)  # noise below 0.1 is no object


def _border(shape: tuple[int, int]) -> np.ndarray:
    """The outermost two pixels, for a box that leaves no ring."""
    border = np.ones(shape, dtype=bool)
    border[2:-2, 2:-2] = False
    return border


def fit_background(pixels: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """A plane of colour [h w 3] through the ring, deaf to what reaches into it."""
    height, width = ring.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    basis = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], axis=-1)
    samples, colors = basis[ring], pixels[ring]
    fitted = np.broadcast_to(np.median(colors, axis=0), colors.shape)
    plane = np.zeros((3, 3), dtype=np.float32)
    for _ in range(3):
        error = np.linalg.norm(colors - fitted, axis=-1)
        kept = error <= 2.0 * np.median(error) + 1e-6
        plane = np.linalg.lstsq(samples[kept], colors[kept], rcond=None)[0]
        fitted = samples @ plane
    return basis @ plane


def _by_palette(pixels: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Alpha of an object before a busy background: colours that occur inside more often than outside."""
    from scipy import ndimage

    words = _color_words(pixels)
    blur = max(pixels.shape) / 60
    alpha = inside.astype(np.float32)
    for _ in range(ROUNDS):
        within = np.bincount(words.ravel(), alpha.ravel(), COLORS) / max(alpha.sum(), 1e-6)
        beside = np.bincount(words[ring], minlength=COLORS) + np.bincount(words[inside], 1 - alpha[inside], COLORS)
        odds = np.log((within + 1e-3) / (beside / max(beside.sum(), 1e-6) + 1e-3))
        alpha = inside / (1 + np.exp(-3 * ndimage.gaussian_filter(odds[words], blur)))
    solid = ndimage.binary_fill_holes(ndimage.binary_opening(alpha > 0.5))
    if not solid.any():
        return inside.astype(np.float32)
    return _without_specks(np.where(solid, np.maximum(alpha, 0.51), np.minimum(alpha, 0.49) * 0.5), inside, least=0.1)


def _color_words(pixels: np.ndarray) -> np.ndarray:
    """[h w] index of each pixel's colour among `COLORS` typical ones (k-means in CIE Lab)."""
    from scipy.cluster.vq import kmeans2
    from skimage.color import rgb2lab

    lab = rgb2lab(pixels / 255.0).reshape(-1, 3)
    sample = lab[:: max(1, len(lab) // 4000)]
    centers, _ = kmeans2(sample, COLORS, iter=15, minit="++", rng=0)
    return ((lab[:, None] - centers) ** 2).sum(-1).argmin(1).reshape(pixels.shape[:2])


def _without_specks(alpha: np.ndarray, inside: np.ndarray, least: float = 0.04) -> np.ndarray:
    """Drop solid islands inside the box that are smaller than `least` of the largest one."""
    from scipy import ndimage

    islands = np.empty(alpha.shape, dtype=np.int32)
    ndimage.label((alpha > 0.5) & inside, structure=np.ones((3, 3)), output=islands)
    if islands.max() < 2:
        return alpha
    sizes = np.bincount(islands.ravel())
    specks = np.flatnonzero(sizes < least * sizes[1:].max())
    return np.where(np.isin(islands, specks[specks > 0]), 0, alpha)


def _typical_color(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Median colour of the object's inner part (the edge is half background)."""
    from scipy import ndimage

    core = np.asarray(ndimage.binary_erosion(mask), dtype=bool)
    chosen = core if core.sum() >= 4 else mask if mask.any() else np.ones_like(mask)
    return np.median(crop[chosen], axis=0).astype(np.float32)


def _shrunk(crop: np.ndarray) -> np.ndarray:
    from PIL import Image

    scale = WORK_SIDE / max(crop.shape[:2])
    if scale >= 1:
        return crop
    height, width = (max(1, round(side * scale)) for side in crop.shape[:2])
    return np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))


def _resized(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bilinear resize of [h w] floats."""
    from PIL import Image

    if values.shape == tuple(shape):
        return values
    return np.asarray(Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
