import torch

from mmunify.adapters.perceiver import PerceiverBlock as FlamingoBlock
from mmunify.layers.perceiver import PerceiverBlock


def test_it_is_flamingos_block_with_another_activation():
    torch.manual_seed(0)
    theirs = FlamingoBlock(8, 2, 4, None)
    ours = PerceiverBlock(8, 2, 4, activation="relu")
    ours.load_state_dict(theirs.state_dict())
    latents, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    torch.testing.assert_close(ours(latents, memory, mask), theirs(latents, memory, mask))
    gelu = PerceiverBlock(8, 2, 4)
    gelu.load_state_dict(theirs.state_dict())
    assert (gelu(latents, memory) - ours(latents, memory)).abs().max() > 1e-3


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
