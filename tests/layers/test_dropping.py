import pytest
import torch

from mmunify.errors import DataError
from mmunify.layers.dropping import NullStates, all_drops, draw_drops
from mmunify.layers.part_options import TrainingOptions
from mmunify.layers.streams import Streams
from mmunify.types import Condition

STATES = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
DROPPED = torch.tensor([True, False, True, False])


def test_one_number_decides_as_in_instruct_pix2pix():
    """Condition below 0.10, source from 0.05 to 0.15: each alone and both, 0.05 each."""
    options = TrainingOptions(drop=0.05, drop_source=0.05, drop_both=0.05)
    count = 4000
    coin = Streams.of_seed(0, count).uniform()
    condition = Condition(states=torch.zeros(count, 1, 1))
    states, source = draw_drops(options, condition, Streams.of_seed(0, count))
    assert torch.equal(states, coin < 0.10)
    assert torch.equal(source, (coin >= 0.05) & (coin < 0.15))
    assert abs(float((states & source).float().mean()) - 0.05) < 0.01


def test_marked_items_always_lose_their_condition():
    condition = Condition(states=STATES, drop=DROPPED)
    states, source = draw_drops(TrainingOptions(drop=0.0), condition, Streams.of_seed(0, 4))
    assert torch.equal(states, DROPPED)
    assert not source.any()


def test_the_same_for_all():
    states, source = all_drops(Condition(states=STATES), True, False)
    assert states.all() and not source.any()


def test_what_stands_in():
    condition = Condition(states=STATES, null=torch.full((3, 5), 7.0))
    zeros, given = (NullStates(5, kind)(condition, DROPPED) for kind in ("zeros", "given"))
    learned = NullStates(5, "learned")
    filled = learned(condition, DROPPED)
    for made in (zeros, given, filled):
        assert torch.equal(made[~DROPPED], STATES[~DROPPED])
    assert (zeros[DROPPED] == 0).all() and (given[DROPPED] == 7).all()
    torch.testing.assert_close(filled[DROPPED], learned.vector.expand(2, 3, 5))
    filled.sum().backward()
    torch.testing.assert_close(learned.vector.grad, torch.full((5,), 6.0))


@pytest.mark.parametrize("null", [None, torch.zeros(2, 5)])
def test_null_states_that_do_not_fit(null):
    with pytest.raises(DataError, match=r"Condition.null of shape \(3, 5\), got .*say null: zeros"):
        NullStates(5, "given")(Condition(states=STATES, null=null), DROPPED)
