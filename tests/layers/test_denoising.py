import pytest
import torch
from torch import nn

from mmunify.layers.denoising import Noised, denoise, denoising_loss, no_items
from mmunify.layers.diffusion_noise import DiffusionNoise
from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.streams import Streams

DATA = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def scheduler(name):
    import diffusers

    return getattr(diffusers, name)()


def oracle(noising):
    """A network that knows the data: it solves x_t for the noise and answers as it was taught."""

    def answer(sample, time, known):
        if isinstance(noising, FlowNoise):
            told = time.view(-1, 1, 1, 1) / noising.time_scale
            share = told if noising.one == "noise" else 1 - told
            direction = (sample - DATA) / share
            answers = {"noise_minus_data": direction, "data_minus_noise": -direction, "data": DATA}
            return answers[noising.target]
        a = noising._schedule.alphas_cumprod[time.long()].view(-1, 1, 1, 1)
        noise = (sample - a.sqrt() * DATA) / (1 - a).sqrt()
        answers = {"epsilon": noise, "sample": DATA, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * DATA}
        return answers[noising.prediction]

    return answer


@pytest.mark.parametrize("one", ["noise", "data"])
@pytest.mark.parametrize("target", ["noise_minus_data", "data_minus_noise", "data"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_ends_at_the_data(one, target, shift):
    noising = FlowNoise(one=one, target=target, shift=shift)
    found = denoise(noising, oracle(noising), {}, Streams.of_seed(0, 2), (3, 4, 4), num_steps=5)
    torch.testing.assert_close(found, DATA, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_diffusion_ends_at_the_data(prediction):
    noising = DiffusionNoise(scheduler("DDIMScheduler"), prediction)
    found = denoise(noising, oracle(noising), {}, Streams.of_seed(0, 2), (3, 4, 4), num_steps=10)
    torch.testing.assert_close(found, DATA, rtol=0, atol=1e-4)


def test_stochastic_schedulers_draw_from_the_items_streams():
    noising = DiffusionNoise(scheduler("DDPMScheduler"))
    network = lambda sample, time, known: 0.1 * sample  # noqa: E731
    both = denoise(noising, network, {}, Streams.of_seed(0, 2), (3, 4, 4), num_steps=4)
    alone = denoise(noising, network, {}, Streams.of_seed(0, 1), (3, 4, 4), num_steps=4)
    torch.testing.assert_close(both[:1], alone)


def test_the_loss_is_weighted_per_item():
    target, output = torch.zeros(2, 4), torch.tensor([[1.0] * 4, [2.0] * 4])
    noised = Noised(sample=target, time=torch.zeros(2), target=target, weight=torch.tensor([1.0, 0.5]))
    made = denoising_loss(noised, output)
    assert float(made.losses["denoising"]) == 1 + 0.5 * 4
    assert int(made.counts["denoising"]) == 2


def test_no_items_reach_all_that_learns():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    made = no_items(module, torch.zeros(0, 2))
    made.losses["denoising"].backward()
    assert float(made.losses["denoising"].detach()) == 0 == float(made.counts["denoising"])
    assert module.weight.grad.abs().sum() == 0
    assert module.bias.grad is None
