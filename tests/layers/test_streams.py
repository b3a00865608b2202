import torch

from mmunify.layers.streams import Streams
from mmunify.parts import Draw


def draw(keys):
    return Draw(seed=3, step=5, keys=keys, part="test")


def test_calls_go_on_where_the_last_one_stopped():
    streams = Streams(draw([7, 8]))
    first, second = streams.normal(4), streams.normal(4)
    assert first.shape == (2, 4)
    torch.testing.assert_close(first, draw([7, 8]).normal(4), rtol=0, atol=0)
    assert (first - second).abs().min() > 0


def test_an_item_draws_the_same_in_any_batch():
    together, alone = Streams(draw([7, 8, 9])), Streams(draw([9]))
    for take in (lambda s: s.normal(2, 3), lambda s: s.uniform(), lambda s: s.normal(5)):
        torch.testing.assert_close(take(together)[2:], take(alone), rtol=0, atol=0)


def test_numbers_of_generation_depend_on_seed_and_place():
    numbers = Streams.of_seed(1, 2).uniform(1000)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.03
    torch.testing.assert_close(numbers[:1], Streams.of_seed(1, 1).uniform(1000), rtol=0, atol=0)
    assert not torch.equal(numbers, Streams.of_seed(2, 2).uniform(1000))


def test_no_items():
    assert Streams.of_seed(0, 0).normal(2, 2).shape == (0, 2, 2)
