"""Features by flow matching: it learns two answers to one state, where a regression would answer with their mean."""

import torch

from mmunify.layers.feature_flow import FeatureFlow
from mmunify.layers.streams import Streams


def test_it_draws_one_of_the_answers_and_not_their_mean():
    torch.manual_seed(0)
    flow = FeatureFlow(4, dim=32, depth=1, num_heads=2, steps=8)
    answers = torch.tensor([[1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, -1.0]])
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for step in range(250):
        wanted = answers[torch.randint(0, 2, (64,))][:, None]
        loss, believed = flow.learn(torch.zeros(64, 1, 4), wanted, Streams.of_seed(step, 64))
        optimizer.zero_grad()
        (loss / 64).backward()
        optimizer.step()
    assert believed.shape == (64, 1, 4)
    drawn = torch.cat([flow.draw(torch.zeros(1, 1, 4), seed) for seed in range(20)])[:, 0]
    distance = (drawn[:, None] - answers).norm(dim=-1)
    assert float(distance.amin(1).mean()) < 0.5 and len(set(distance.argmin(1).tolist())) == 2


def test_what_is_drawn_does_not_depend_on_the_others():
    flow = FeatureFlow(6, depth=1, steps=3, scale=2.0)
    states = torch.randn(3, 5, 6)
    together = flow.draw(states)
    for item in range(3):
        torch.testing.assert_close(flow.draw(states[item : item + 1])[0], together[item])
    assert not torch.equal(flow.draw(states, seed=1), together)


def test_the_loss_is_a_sum_over_items_with_their_own_noise():
    flow = FeatureFlow(6, depth=1)
    states, wanted = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    both, _ = flow.learn(states, wanted, Streams.of_seed(3, 2))
    first, _ = flow.learn(states[:1], wanted[:1], Streams.of_seed(3, 1))
    assert 0 < float(first.detach()) < float(both.detach())
