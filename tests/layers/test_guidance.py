import pytest
import torch

from mmunify.errors import UserError
from mmunify.layers.guidance import climb, guided, read_strengths


def test_three_rungs_are_instruct_pix2pix():
    """e_u + g (e_c - e_i) + g_i (e_i - e_u), written out."""
    unknown, image, full = torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor([10.0])
    assert float(climb([unknown, image, full], [1.5, 7.5])) == 1 + 7.5 * (10 - 4) + 1.5 * (4 - 1)
    assert float(climb([unknown, full], [7.5])) == 1 + 7.5 * 9


def test_guiding_noise_is_guiding_the_predicted_data():
    """At one x_t both are affine in each other, and the weights of the rungs sum to one."""
    sample, sigma = torch.randn(5), 3.0
    answers = [torch.randn(5) for _ in range(3)]
    by_noise = sample - sigma * climb(answers, [1.5, 7.5])
    by_data = climb([sample - sigma * answer for answer in answers], [1.5, 7.5])
    torch.testing.assert_close(by_noise, by_data, rtol=1e-4, atol=1e-4)


def test_rungs_are_asked_in_one_batch():
    calls = []

    def network(sample, time, known):
        calls.append(len(sample))
        return sample + known["states"].mean((1, 2))[:, None]

    sample, time = torch.randn(2, 3), torch.zeros(2)
    rungs = [{"states": torch.full((2, 1, 1), value)} for value in (0.0, 1.0)]
    answer, known = guided(network, rungs, [2.0])
    torch.testing.assert_close(answer(sample, time, known), sample + 2)
    alone, known = guided(network, rungs, [1.0])
    torch.testing.assert_close(alone(sample, time, known), sample + 1)
    assert calls == [4, 2]


def test_strengths():
    assert read_strengths({"source": 2.0}, {"condition": 7.5, "source": 1.5}, "x") == {"condition": 7.5, "source": 2.0}
    with pytest.raises(UserError, match="guidance of sdxl has no strength 'text'; it takes condition, source"):
        read_strengths({"text": 2.0}, {"condition": 7.5, "source": 1.5}, "sdxl")
