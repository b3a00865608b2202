"""Pure metrics: hand-made cases and the public definitions written out again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou as torchvision_iou

from mmunify.evaluate import scores

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("answer", "truth", "equal"),
    [("A red 7.", "a red 7", True), (" two \n 1s", "two 1s", True), ("a red 7", "a blue 7", False), ("", "a", False)],
)
def test_exact_match(answer, truth, equal):
    assert scores.exact_match(answer, truth) is equal


corners = st.tuples(*[st.floats(0, 1, width=32) for _ in range(4)])


@settings(deadline=None)
@given(corners, corners)
def test_box_iou_is_torchvisions(first, second):
    first, second = ((min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])) for b in (first, second))
    expected = torchvision_iou(torch.tensor([first]).double(), torch.tensor([second]).double()).nan_to_num().item()
    assert scores.box_iou(first, second) == pytest.approx(expected, abs=1e-9)


def test_an_iou_of_exactly_one_half_is_a_miss():
    truth = (0.0, 0.0, 1.0, 1.0)
    assert scores.box_iou((0.0, 0.0, 0.5, 1.0), truth) == 0.5
    assert not scores.is_located((0.0, 0.0, 0.5, 1.0), truth)
    assert scores.is_located((0.0, 0.0, 0.51, 1.0), truth)
    assert not scores.is_located(None, truth)


def test_reversed_boxes_never_hit():
    assert scores.box_iou((0.9, 0.9, 0.1, 0.1), (0.1, 0.1, 0.9, 0.9)) == 0.0


def lisa(pairs):
    """LISA's validation loop, histograms and all, for binary masks."""
    inter, union, acc = np.zeros(2), np.zeros(2), np.zeros(2)
    for answer, truth in pairs:
        output, target = answer.astype(int).ravel(), truth.astype(int).ravel()
        i = np.histogram(output[output == target], bins=2, range=(0, 1))[0]
        u = np.histogram(output, bins=2, range=(0, 1))[0] + np.histogram(target, bins=2, range=(0, 1))[0] - i
        inter, union = inter + i, union + u
        one = i / (u + 1e-5)
        one[u == 0] += 1.0
        acc += one
    return (inter / (union + 1e-10))[1], (acc / len(pairs))[1]


def test_ciou_and_giou_are_lisas():
    shares = [(0.3, 0.4), (0.9, 0.1), (0.0, 0.5), (0.0, 0.0)]
    pairs = [(RNG.random((9, 7)) < p, RNG.random((9, 7)) < q) for p, q in shares]
    overlaps = [scores.mask_overlap(a, b) for a, b in pairs]
    expected_c, expected_g = lisa(pairs)
    assert scores.cumulative_iou(overlaps).value == pytest.approx(expected_c, abs=1e-12)
    assert scores.general_iou(overlaps).value == pytest.approx(expected_g, abs=1e-12)


def test_a_missing_mask_counts_as_empty():
    truth = np.eye(4, dtype=bool)
    assert scores.mask_overlap(None, truth) == (0.0, 4.0)


def pictures():
    source = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    edited = source.copy()
    edited[:16, :16] = 0
    mask = np.zeros((64, 64), dtype=bool)
    mask[:16, :16] = True
    return source, edited, mask


def test_psnr_agrees_with_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio

    source, edited, _ = pictures()
    assert scores.psnr(source, edited) == pytest.approx(peak_signal_noise_ratio(source, edited), abs=1e-9)


def test_background_psnr_sees_the_background_alone():
    source, edited, mask = pictures()
    assert scores.background_psnr(source, edited, mask) == scores.PSNR_CAP
    noisy = np.clip(edited.astype(int) + 1, 0, 255).astype(np.uint8)
    expected = -10 * np.log10(np.mean(((source[~mask] / 255.0) - (noisy[~mask] / 255.0)) ** 2))
    assert scores.background_psnr(source, noisy, mask) == pytest.approx(expected)


def test_the_mask_size_moves_smartedits_number_but_not_ours():
    source = np.full((64, 64, 3), 100, np.uint8)
    edited = source + np.uint8(10)
    small, large = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    small[:8], large[:48] = True, True
    ours = [scores.background_psnr(source, edited, mask) for mask in (small, large)]
    theirs = [scores.background_psnr_smartedit(source, edited, mask) for mask in (small, large)]
    assert ours[0] == pytest.approx(ours[1])
    # zeros dilute the error by the share of the background: 7/8 against 1/4 of the frame
    assert theirs[1] - theirs[0] == pytest.approx(10 * np.log10((7 / 8) / (1 / 4)), abs=1e-6)


def test_smartedit_variant_is_the_psnr_of_the_masked_frame():
    from PIL import Image
    from skimage.metrics import peak_signal_noise_ratio

    source, edited, mask = pictures()
    edited = np.clip(edited.astype(int) + RNG.integers(0, 9, edited.shape), 0, 255).astype(np.uint8)

    def resize(array, how):
        return np.asarray(Image.fromarray(array).resize((256, 256), how)) / 255

    keep = 1 - resize(mask.astype(np.uint8) * 255, Image.Resampling.NEAREST)[..., None]
    first, second = (resize(picture, Image.Resampling.BICUBIC) * keep for picture in (source, edited))
    expected = peak_signal_noise_ratio(first, second, data_range=1.0)
    assert scores.background_psnr_smartedit(source, edited, mask) == pytest.approx(expected, abs=1e-9)
