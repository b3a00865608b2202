import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from mmunify.layers.flow_noise import FlowNoise
from mmunify.layers.streams import Streams

DATA = torch.randn(500, 2, 3, generator=torch.Generator().manual_seed(0))


def noised(**arguments):
    return FlowNoise(**arguments)(DATA, Streams.of_seed(0, len(DATA)))


def share(made, one):
    told = made.time.view(-1, 1, 1) / 1000
    return told if one == "noise" else 1 - told


@pytest.mark.parametrize("one", ["noise", "data"])
@pytest.mark.parametrize(("target", "sign"), [("noise_minus_data", 1), ("data_minus_noise", -1)])
def test_direction_of_time_and_sign_of_the_target(one, target, sign):
    """x_t = (1 - s) x + s e with s the share of noise: time is s where it is one at noise, 1 - s where at data."""
    made = noised(one=one, target=target)
    s = share(made, one)
    noise = DATA + sign * made.target
    torch.testing.assert_close(made.sample, (1 - s) * DATA + s * noise, rtol=1e-4, atol=1e-4)
    assert abs(float(noise.std()) - 1) < 0.05
    torch.testing.assert_close(noise, Streams.of_seed(0, len(DATA)).normal(2, 3), rtol=1e-4, atol=1e-4)


def test_the_two_public_conventions():
    """Sana: the network is told 1000 at noise, and answers e - x. Lumina 2: 0 at noise, and x - e."""
    sana, lumina = FlowNoise(), FlowNoise(one="data", target="data_minus_noise", time_scale=1.0)
    timesteps = torch.tensor([1000.0, 250.0, 0.0])
    assert sana.time(timesteps).tolist() == [1000.0, 250.0, 0.0]
    assert lumina.time(timesteps).tolist() == [0.0, 0.75, 1.0]
    output = torch.ones(2)
    assert sana.answer(output, output, timesteps[0]).tolist() == [1, 1]
    assert lumina.answer(output, output, timesteps[0]).tolist() == [-1, -1]


def test_a_network_may_answer_with_the_data():
    """Then the direction is what leads from it to the sample: (x_t - x) / s."""
    flow = FlowNoise(target="data")
    made = flow(DATA, Streams.of_seed(0, len(DATA)))
    assert torch.equal(made.target, DATA)
    noise = Streams.of_seed(0, len(DATA)).normal(2, 3)
    half = 0.5 * (DATA + noise)
    torch.testing.assert_close(flow.answer(DATA, half, torch.tensor(500.0)), noise - DATA)


def test_the_sample_is_that_of_the_scheduler():
    made, scheduler = noised(), FlowMatchEulerDiscreteScheduler()
    index = [int((scheduler.timesteps - time).abs().argmin()) for time in made.time[:20]]
    near = scheduler.timesteps[index]
    wanted = scheduler.scale_noise(DATA[:20], near, DATA[:20] + made.target[:20])
    torch.testing.assert_close(made.sample[:20], wanted, rtol=0, atol=0.01)  # its grid of 1000 times


def test_times():
    uniform, middle = noised(), noised(times="lognormal")
    assert abs(float(uniform.time.mean()) - 500) < 40
    assert float(middle.time.std()) < float(uniform.time.std()) - 50
    shifted = FlowNoise(shift=3.0).shares(Streams.of_seed(0, len(DATA)))
    plain = FlowNoise().shares(Streams.of_seed(0, len(DATA)))
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


def test_the_scheduler_is_shifted_as_the_training_is():
    scheduler = FlowNoise(shift=3.0).scheduler()
    scheduler.set_timesteps(4)
    torch.testing.assert_close(scheduler.sigmas[0], torch.tensor(1.0))
    given = FlowMatchEulerDiscreteScheduler(shift=2.0)
    assert FlowNoise(scheduler=given).scheduler().config.shift == 2.0
