import torch

from mmunify.layers.flow_connector import FlowConnector


def test_the_condition_has_the_size_that_sana_knows():
    torch.manual_seed(0)
    connector = FlowConnector(16, 20, depth=2, num_heads=2)
    condition = connector(torch.randn(2, 5, 16))
    assert condition.shape == (2, 5, 20)
    torch.testing.assert_close(condition.square().mean(-1), torch.full((2, 5), 5.5), rtol=1e-3, atol=1e-3)
    assert FlowConnector(16, 20, gain=1.0).out_norm.weight.tolist() == [1.0] * 20


def test_blocks_let_states_see_each_other():
    torch.manual_seed(0)
    states = torch.randn(1, 5, 16)
    changed = torch.cat([states[:, :4], torch.randn(1, 1, 16)], dim=1)
    mixed, alone = FlowConnector(16, 20, depth=1, num_heads=2), FlowConnector(16, 20)
    assert (mixed(states)[:, 0] - mixed(changed)[:, 0]).abs().max() > 1e-4
    assert torch.equal(alone(states)[:, 0], alone(changed)[:, 0])
    mask = torch.tensor([[True, True, True, True, False]])
    torch.testing.assert_close(mixed(states, mask)[:, :4], mixed(changed, mask)[:, :4])


def test_an_order_is_known_to_blocks_alone():
    torch.manual_seed(0)
    states = torch.randn(1, 5, 16)
    mixed, alone = FlowConnector(16, 20, depth=1, num_heads=2), FlowConnector(16, 20)
    for weight in (mixed.blocks[0].query.weight, mixed.blocks[0].key.weight, mixed.blocks[0].value.weight):
        torch.nn.init.normal_(weight)
    assert (mixed(states).flip(1) - mixed(states.flip(1))).abs().max() > 1e-4
    torch.testing.assert_close(alone(states).flip(1), alone(states.flip(1)))


def test_widths_inside():
    connector = FlowConnector(16, 20, depth=1, num_heads=2, hidden_dim=12, project_dim=7)
    assert connector.project[0].out_features == 7
    assert connector.blocks[0].feed_forward.reduce.in_features == 12
