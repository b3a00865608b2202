import torch

from mmunify.layers.perceiver import PerceiverBlock


def test_the_activation_is_the_feed_forwards_alone():
    """Flamingo has ReLU; the attention before it doesn't change, and the parity test of the adapter holds it."""
    torch.manual_seed(0)
    gelu, relu = PerceiverBlock(8, 2, 4), PerceiverBlock(8, 2, 4, activation="relu")
    relu.load_state_dict(gelu.state_dict())
    latents, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    queries = relu.latents_norm(latents)
    read = latents + relu.attention(queries, torch.cat([relu.memory_norm(memory), queries], dim=1))
    inside = relu.feed_forward.expand(relu.feed_forward_norm(read)).relu()
    torch.testing.assert_close(relu(latents, memory), read + relu.feed_forward.reduce(inside))
    assert (gelu(latents, memory) - relu(latents, memory)).abs().max() > 1e-3


def test_masked_memory_is_as_good_as_absent():
    torch.manual_seed(0)
    block = PerceiverBlock(8, 2, 4)
    latents, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True, True, False, False, False]] * 2)
    torch.testing.assert_close(block(latents, memory, mask), block(latents, memory[:, :2]))


def test_symmetric_scaling_is_the_usual_one():
    """SEED-X scales queries and keys by d^(-1/4) each before the product."""
    torch.manual_seed(0)
    block = PerceiverBlock(8, 2, 4)
    latents, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    queries = block.latents_norm(latents)
    both = torch.cat([block.memory_norm(memory), queries], dim=1)
    heads = lambda x: x.unflatten(2, (2, 4)).transpose(1, 2)  # noqa: E731
    layers = block.attention
    q, k, v = heads(layers.query(queries)), heads(layers.key(both)), heads(layers.value(both))
    weights = ((q * 4**-0.25) @ (k * 4**-0.25).transpose(2, 3)).softmax(-1)
    read = latents + layers.output((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block(latents, memory), read + block.feed_forward(block.feed_forward_norm(read)))
