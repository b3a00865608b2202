import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmunify import losses
from mmunify.errors import UserError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_masked_sum_ignores_what_is_masked_even_nan():
    values = torch.tensor([[1.0, float("nan")], [2.0, 4.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert losses.masked_sum(values, mask) == 7


def test_feature_mse_is_a_sum_over_tokens_of_means():
    a, b = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    torch.testing.assert_close(losses.feature_mse(a, b), F.mse_loss(a, b, reduction="sum") / 5)
    mask = torch.tensor([[True, False, False], [False, False, True]])
    torch.testing.assert_close(losses.feature_mse(a, b, mask), losses.feature_mse(a[mask], b[mask]))


def test_cosine_ends():
    a = torch.randn(4, 6)
    torch.testing.assert_close(losses.cosine(a, 3 * a), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(losses.cosine(a, -a), torch.tensor(8.0))


def test_dice_ends():
    target = (torch.rand(3, 8, 8) > 0.5).float()
    sure = 40 * (2 * target - 1)
    assert losses.dice(sure, target) < 1e-4
    assert losses.dice(-sure, target) > 2.9
    assert losses.dice(torch.full((1, 4, 4), -40.0), torch.zeros(1, 4, 4)) < 1e-4


def test_dice_by_hand():
    logits, target = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(losses.dice(logits, target, smooth=0.0), torch.tensor(1 - 2 * 1.0 / 4))


def test_bce_and_l1_are_sums_of_means():
    logits, target = torch.randn(3, 4, 5), (torch.rand(3, 4, 5) > 0.5).float()
    torch.testing.assert_close(losses.bce(logits, target), 3 * F.binary_cross_entropy_with_logits(logits, target))
    torch.testing.assert_close(losses.l1(logits, target), 3 * F.l1_loss(logits, target))
    torch.testing.assert_close(losses.smooth_l1(logits, target, 0.3), 3 * F.smooth_l1_loss(logits, target, beta=0.3))


def test_giou_by_hand():
    assert losses.giou(boxes([0, 0, 1, 1]), boxes([0, 0, 1, 1])) == 0
    apart = losses.giou(boxes([0, 0, 1, 1]), boxes([3, 0, 4, 1]))
    torch.testing.assert_close(apart, torch.tensor(1 - (0 - 2 / 4), dtype=torch.float64))


def test_giou_equals_torchvision():
    from torchvision.ops import generalized_box_iou_loss

    corners = torch.rand(20, 2, 2, 2).sort(dim=2).values.flatten(2)
    ours = losses.giou(corners[:, 0], corners[:, 1])
    torch.testing.assert_close(ours, generalized_box_iou_loss(corners[:, 0], corners[:, 1], reduction="sum"))


def test_giou_of_boxes_without_area_is_finite():
    flat = torch.zeros(2, 4, requires_grad=True)
    loss = losses.giou(flat, torch.zeros(2, 4))
    loss.backward()
    assert loss.isfinite()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("noise", [0.02, 0.2, 1.0])
def test_similarity_equals_skimage(noise):
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    a = rng.random((2, 3, 24, 20))
    b = np.clip(a + noise * rng.standard_normal(a.shape), 0, 1)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    wanted = [structural_similarity(x, y, channel_axis=0, **options) for x, y in zip(a, b, strict=True)]
    ours = losses.structural_similarity(torch.tensor(a), torch.tensor(b))
    torch.testing.assert_close(ours, torch.tensor(wanted), atol=1e-9, rtol=0)


def test_pictures_smaller_than_the_window():
    with pytest.raises(UserError, match="windows of 11 pixels; the picture has 8"):
        losses.ssim(torch.rand(1, 3, 16, 8), torch.rand(1, 3, 16, 8))


def test_equal_pictures_are_similar():
    picture = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(losses.ssim(picture, picture), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["feature_mse", "cosine", "dice", "bce", "l1", "smooth_l1"])
def test_no_item_is_zero_with_a_gradient(name):
    prediction = torch.zeros(0, 4, requires_grad=True)
    loss = getattr(losses, name)(prediction, torch.zeros(0, 4))
    loss.backward()
    assert float(loss.detach()) == 0


def test_euclidean_is_the_length_and_its_gradient_is_finite_at_zero():
    prediction, target = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    torch.testing.assert_close(losses.euclidean(prediction, target), (prediction - target).norm(dim=-1).sum())
    same = target.clone().requires_grad_()
    losses.euclidean(same, target).backward()
    assert float(same.grad.abs().sum()) == 0


def test_contrastive_is_clips_loss_of_both_directions():
    left, right = (torch.nn.functional.normalize(torch.randn(4, 6), dim=-1) for _ in range(2))
    logits, wanted = 10 * left @ right.T, torch.arange(4)
    by_hand = (
        torch.nn.functional.cross_entropy(logits, wanted) + torch.nn.functional.cross_entropy(logits.T, wanted)
    ) / 2
    torch.testing.assert_close(losses.contrastive(left, right, torch.tensor(10.0)) / 4, by_hand)
    parts = [losses.contrastive(left[i : i + 2], right[i : i + 2], torch.tensor(10.0), left, right, i) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).sum() / 4, by_hand)
    assert float(losses.contrastive(left[:0], right[:0], torch.tensor(10.0), left, right, 2)) == 0


def test_dice_of_lisa():
    """Its form: sums scaled by 1/1000 and 1e-6 above and below."""
    logits, truth = torch.randn(2, 7, 7), (torch.rand(2, 7, 7) > 0.5).float()
    p = logits.sigmoid().flatten(1)
    g = truth.flatten(1)
    above = 2 * (p / 1000 * g).sum(1) + 1e-6
    below = (p / 1000).sum(1) + (g / 1000).sum(1) + 1e-6
    torch.testing.assert_close(losses.dice(logits, truth, smooth=1e-3), (1 - above / below).sum())
