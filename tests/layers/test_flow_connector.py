import torch

from mmunify.layers.flow_connector import FlowConnector


def test_the_condition_has_the_size_that_sana_knows():
    torch.manual_seed(0)
    connector = FlowConnector(16, 20, depth=2, num_heads=2)
    condition = connector(torch.randn(2, 5, 16))
    assert condition.shape == (2, 5, 20)
    torch.testing.assert_close(condition.square().mean(-1), torch.full((2, 5), 5.5), rtol=1e-3, atol=1e-3)
    assert FlowConnector(16, 20, gain=1.0).norm.weight.tolist() == [1.0] * 20


def test_blocks_let_states_see_each_other():
    torch.manual_seed(0)
    states = torch.randn(1, 5, 16)
    changed = torch.cat([states[:, :4], torch.randn(1, 1, 16)], dim=1)
    mixed, alone = FlowConnector(16, 20, depth=1, num_heads=2), FlowConnector(16, 20)
    assert (mixed(states)[:, 0] - mixed(changed)[:, 0]).abs().max() > 1e-4
    assert torch.equal(alone(states)[:, 0], alone(changed)[:, 0])
    mask = torch.tensor([[True, True, True, True, False]])
    torch.testing.assert_close(mixed(states, mask)[:, :4], mixed(changed, mask)[:, :4])
