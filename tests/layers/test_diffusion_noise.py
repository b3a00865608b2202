import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.streams import Streams

DATA = torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(0))
SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def noised(**arguments):
    return DiffusionNoise(EulerDiscreteScheduler(**SDXL), **arguments)(DATA, Streams.of_seed(0, 64))


def test_the_sample_is_data_and_noise_in_the_schedule_of_sdxl():
    """The betas are those of the Euler scheduler, whose sigmas are the ratio of noise and data."""
    made = noised()
    assert made.time.dtype == torch.long and made.time.min() >= 0 and made.time.max() < 1000
    assert made.time.float().std() > 200
    sigma = EulerDiscreteScheduler(**SDXL).sigmas.flip(0)[1:][made.time].view(-1, 1, 1)
    share = (1 / (1 + sigma**2)).sqrt()
    torch.testing.assert_close(made.sample, share * (DATA + sigma * made.target), rtol=1e-4, atol=1e-4)


def test_targets_fit_each_other():
    epsilon, velocity, sample = (noised(prediction=name) for name in ("epsilon", "v_prediction", "sample"))
    torch.testing.assert_close(sample.target, DATA)
    a = DDPMScheduler(**SDXL).alphas_cumprod[epsilon.time].view(-1, 1, 1)
    torch.testing.assert_close(velocity.target, a.sqrt() * epsilon.target - (1 - a).sqrt() * DATA)


def test_the_scheduler_says_what_is_predicted_unless_the_recipe_does():
    given = DDPMScheduler(prediction_type="v_prediction")
    assert DiffusionNoise(given).prediction == "v_prediction"
    assert DiffusionNoise(given, "epsilon").scheduler().config.prediction_type == "epsilon"
    for prediction in ("sample", "v_prediction"):  # also where the scheduler's own is a default
        assert DiffusionNoise(DDPMScheduler(), prediction).scheduler().config.prediction_type == prediction
    assert type(DiffusionNoise(EulerDiscreteScheduler()).scheduler()) is EulerDiscreteScheduler


@pytest.mark.parametrize(("prediction", "below"), [("epsilon", 0), ("v_prediction", 1), ("sample", None)])
def test_min_snr_weights(prediction, below):
    time = torch.tensor([0, 10, 500, 999])
    snr = compute_snr(DDPMScheduler(**SDXL), time)
    wanted = snr.clamp(max=5) / (1 if below is None else snr + below)
    weight = DiffusionNoise(DDPMScheduler(**SDXL), prediction, min_snr=5.0).weight(time)
    torch.testing.assert_close(weight, wanted, rtol=1e-3, atol=1e-6)
    assert weight.unique().numel() > 1
    assert DiffusionNoise(DDPMScheduler(**SDXL), prediction).weight(time).tolist() == [1.0] * 4


def test_pure_noise_weighs_something_finite():
    """With a terminal signal of zero, the ratio is 0 / 0 for the noise."""
    zero = DDPMScheduler(**SDXL, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    for prediction in ("epsilon", "v_prediction"):
        assert DiffusionNoise(zero, prediction, min_snr=5.0).weight(torch.tensor([999])).isfinite().all()


def test_schedules_are_numbers_where_weights_are_shapes():
    with torch.device("meta"):
        noising = DiffusionNoise(_on_cpu(), min_snr=5.0)
        scheduler = noising.scheduler()
    assert not noising.weight(torch.tensor([1])).is_meta
    assert not scheduler.alphas_cumprod.is_meta


def _on_cpu():
    with torch.device("cpu"):
        return EulerDiscreteScheduler(**SDXL)
