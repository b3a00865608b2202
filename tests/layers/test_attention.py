import pytest
import torch
from torch.nn import functional as F

from mmunify.errors import UserError
from mmunify.layers.attention import CrossAttention


def test_equals_torch_multihead_attention():
    torch.manual_seed(0)
    ours = CrossAttention(dim=12, memory_dim=20, num_heads=3)
    theirs = torch.nn.MultiheadAttention(12, 3, kdim=20, vdim=20, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.query.weight)
        theirs.k_proj_weight.copy_(ours.key.weight)
        theirs.v_proj_weight.copy_(ours.value.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    queries, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 20)
    mask = torch.arange(7).expand(2, 7) < torch.tensor([[7], [4]])
    wanted, _ = theirs(queries, memory, memory, key_padding_mask=~mask)
    torch.testing.assert_close(ours(queries, memory, mask), wanted, atol=1e-6, rtol=0)


def test_masked_memory_is_as_good_as_absent():
    torch.manual_seed(0)
    attention = CrossAttention(dim=8, num_heads=2)
    queries, memory = torch.randn(1, 3, 8), torch.randn(1, 6, 8)
    mask = torch.tensor([[True, True, True, True, False, False]])
    torch.testing.assert_close(attention(queries, memory, mask), attention(queries, memory[:, :4]))


def test_nothing_to_see_gives_the_bias_and_finite_gradients():
    attention = CrossAttention(dim=8, num_heads=2)
    queries, memory = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 4, 8)
    mask = torch.tensor([[True] * 4, [False] * 4])
    states = attention(queries, memory, mask)
    torch.testing.assert_close(states[1], attention.output.bias.expand(3, 8))
    states.sum().backward()
    assert queries.grad.isfinite().all()
    assert attention.key.weight.grad.isfinite().all()


def test_head_dim_frees_the_width_from_the_heads():
    attention = CrossAttention(dim=10, num_heads=3, head_dim=4, bias=False)
    assert attention.query.out_features == 12
    assert attention.output.bias is None
    assert attention(torch.randn(1, 2, 10), torch.randn(1, 5, 10)).shape == (1, 2, 10)


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    attention = CrossAttention(dim=8, num_heads=2, dropout=0.5)
    queries = torch.randn(1, 6, 8)
    assert not torch.equal(attention(queries, queries), attention(queries, queries))
    attention.eval()
    assert torch.equal(attention(queries, queries), attention(queries, queries))


def test_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(UserError, match="dim=10 is no multiple of num_heads=3"):
        CrossAttention(dim=10, num_heads=3)


def test_one_head_by_hand():
    torch.manual_seed(0)
    attention = CrossAttention(dim=4, num_heads=1, bias=False).double()
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    scores = F.softmax(attention.query(x) @ attention.key(x).transpose(1, 2) / 2, dim=-1)
    torch.testing.assert_close(attention(x, x), attention.output(scores @ attention.value(x)))


def test_places_reach_the_keys_alone():
    torch.manual_seed(0)
    attention = CrossAttention(dim=4, num_heads=1, bias=False).double()
    x, places = torch.randn(1, 3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    scores = F.softmax(attention.query(x) @ attention.key(x + places).transpose(1, 2) / 2, dim=-1)
    wanted = attention.output(scores @ attention.value(x))
    torch.testing.assert_close(attention(x, x, None, places), wanted)
