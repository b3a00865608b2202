import copy

import pytest
import torch
from torch import nn

from mmunify.errors import UserError
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._inject import without_low_rank
from mmunify.experts.low_rank._routing import gate_statistics
from mmunify.experts.low_rank.adapter_mixture import AdapterMixture, AdapterMixtureTuner
from mmunify.registry import TUNERS


def shake(module):
    torch.manual_seed(3)
    for name, parameter in module.named_parameters():
        if ".low_rank." in name or isinstance(module, AdapterMixture):
            nn.init.normal_(parameter)
    return module


class Linears(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.fc = nn.Linear(d_in, d_out)

    def forward(self, states):
        return self.fc(states), "rest"


def tiny_t5():
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(vocab_size=32, **sizes)).double().eval()


def test_the_term_equals_the_papers_equation_token_by_token():
    term = shake(AdapterMixture(6, 3, num_adapters=2, num_tasks=4).double())
    x, task = torch.randn(2, 5, 6, dtype=torch.float64), torch.randint(4, (2, 5))
    with use_tokens(TokenContext(task=task)):
        out = term(x)
    for b in range(2):
        for t in range(5):
            wanted = torch.zeros(6, dtype=torch.float64)
            for k in range(2):
                h = torch.relu(term.down[k] @ x[b, t] + term.down_bias[k])
                wanted += term.ratio[k, task[b, t]] * term.scale[k] * (term.up[k] @ h + term.up_bias[k])
            torch.testing.assert_close(out[b, t], wanted, rtol=0, atol=1e-10)


def test_it_starts_as_one_adapter_per_task():
    term = AdapterMixture(6, 3, num_adapters=2, num_tasks=3)
    assert term.ratio.mean(-1).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert term.up.abs().max() == term.up_bias.abs().max() == 0
    assert term.scale.tolist() == [1, 1]
    assert 0 < term.down.abs().max() <= 6**-0.5


def test_on_t5_a_fresh_one_changes_nothing_and_reads_the_residual_stream():
    frozen = tiny_t5()
    tuned = copy.deepcopy(frozen)
    names = TUNERS.build({"name": "adapter_mixture", "match": ["encoder.block.*.layer.1"], "rank": 3}).apply(tuned)
    assert names == ["encoder.block.0.layer.1", "encoder.block.1.layer.1"]
    ids = torch.randint(32, (2, 6))
    task = torch.tensor([[0], [1]]).expand(2, 6)
    with use_tokens(TokenContext(task=task)):
        assert torch.equal(tuned.encoder(ids).last_hidden_state, frozen.encoder(ids).last_hidden_state)
        shake(tuned)
        block, seen = tuned.encoder.block[0].layer[1], []
        block.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
        tuned.encoder(ids)
        ((x, out),) = seen
        torch.testing.assert_close(out, frozen.encoder.block[0].layer[1](x) + block.low_rank(x))
        assert set(gate_statistics(tuned)) == set(names)
    with without_low_rank(tuned):
        assert torch.equal(tuned.encoder(ids).last_hidden_state, frozen.encoder(ids).last_hidden_state)


def test_every_parameter_of_a_task_learns():
    term = shake(AdapterMixture(6, 3, num_adapters=2, num_tasks=2))
    with use_tokens(TokenContext(task=torch.ones(2, 5, dtype=torch.long))):
        term(torch.randn(2, 5, 6)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in term.parameters())
    assert term.ratio.grad[:, 0].abs().max() == 0


def test_tuples_keep_their_rest_and_keywords_are_read():
    model = nn.ModuleDict({"mlp": Linears(4, 4)})
    AdapterMixtureTuner("mlp", rank=2, num_adapters=1, num_tasks=1).apply(model)
    shake(model)
    x = torch.randn(3, 4)
    out, rest = model["mlp"](states=x)
    linear = model["mlp"].fc
    torch.testing.assert_close(out, linear(x) + model["mlp"].low_rank(x))
    assert rest == "rest"


def test_bad_input_is_refused():
    model = nn.ModuleDict({"mlp": Linears(4, 6)})
    with pytest.raises(UserError, match="mlp reads 4 numbers and gives 6"):
        AdapterMixtureTuner("mlp").apply(model)
    with pytest.raises(UserError, match="num_adapters must be at least 1, got 0"):
        AdapterMixtureTuner("mlp", num_adapters=0)
    square = nn.ModuleDict({"mlp": Linears(4, 4)})
    AdapterMixtureTuner("mlp", rank=2).apply(square)
    with pytest.raises(UserError, match="mlp: its gate reads task of every token, but the token context has none"):
        square["mlp"](torch.randn(2, 4))
    refused = pytest.raises(UserError, match=r"mlp: task id 2 has no row, there are 2 \(0..1\)")
    with use_tokens(TokenContext(task=torch.tensor([[0, 2]]))), refused:
        square["mlp"](torch.randn(2, 4))
