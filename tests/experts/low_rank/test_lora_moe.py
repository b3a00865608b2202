import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmunify.errors import RecipeError, UserError
from mmunify.experts.low_rank._context import TokenContext, checkpoint_context_fn, use_tokens
from mmunify.experts.low_rank._inject import clean_name
from mmunify.experts.low_rank._routing import collect_aux, gate_statistics
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner
from mmunify.registry import TUNERS

GATES = ["softmax", "sigmoid", "top_k", "top_p", "switch"]
NAMES = ("gate", "up", "down")


def build(d_in=6, d_out=8, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(d_in, d_out))
    LoRAMoETuner("0", **{"rank": 2, "num_experts": 4, **settings}).apply(model)
    nn.init.normal_(model[0].low_rank.b)
    return model


def tiny_llama():
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaModel(LlamaConfig(vocab_size=32, **sizes))
    LoRAMoETuner("*.mlp.*_proj", rank=2, num_experts=4, balance="cv_squared", balance_weight=1.0).apply(llama)
    for name, parameter in llama.named_parameters():
        parameter.requires_grad_(".low_rank." in name)
        if name.endswith("low_rank.b"):
            nn.init.normal_(parameter)
    return llama


def test_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in build().named_parameters()}
    assert shapes == {
        "0.weight": (8, 6),
        "0.bias": (8,),
        "0.low_rank.a": (8, 6),
        "0.low_rank.b": (8, 8),
        "0.low_rank.gate": (4, 6),
    }


def test_equal_seeds_make_equal_terms():
    assert all(map(torch.equal, build().state_dict().values(), build().state_dict().values()))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_as_wide_as_the_output_is_kept_for_the_backward(gate, dtype):
    tokens, d_in, d_out, num_experts, rank = 32, 64, 512, 8, 4
    model = build(d_in, d_out, gate=gate, num_experts=num_experts, rank=rank)
    model[0].to(dtype)
    x = torch.randn(tokens, d_in, dtype=dtype)
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x).sum().backward()
    extra = [s.nbytes() for pointer, s in kept.items() if pointer not in parameters | {x.untyped_storage().data_ptr()}]
    per_token = 2 * num_experts * rank * dtype.itemsize + 4 * num_experts * 4
    assert 0 < sum(extra) <= tokens * per_token


@pytest.mark.parametrize("gate", GATES)
def test_bf16_autocast_is_close_to_float32_and_the_gate_is_exact(gate):
    model = build(32, 16, gate=gate)
    x = torch.randn(4, 5, 32)
    exact, weights = model(x), model[0].low_rank.route(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough, same = model(x), model[0].low_rank.route(x)
    assert rough.dtype == torch.bfloat16
    assert torch.equal(weights, same)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    rough.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_weights_learn_in_float32():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8)).bfloat16()
    LoRAMoETuner("0", rank=2, num_experts=4).apply(model)
    out = model(torch.randn(3, 6).bfloat16())
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert {p.grad.dtype for p in model[0].low_rank.parameters()} == {torch.float32}


def test_dropout_draws_one_mask_for_all_experts_and_spares_the_gate():
    model = build(dropout=0.5)
    term, x = model[0].low_rank, torch.randn(3, 6)
    torch.manual_seed(1)
    mask = nn.functional.dropout(torch.ones(3, 6), 0.5)
    torch.manual_seed(1)
    got = term(x)
    weights = (x @ term.gate.T).softmax(-1)
    experts = torch.einsum("td,xrd,oxr->txo", x * mask, term.a.view(4, 2, 6), term.b.view(8, 4, 2))
    torch.testing.assert_close(got, 16.0 * (weights[..., None] * experts).sum(1))
    assert torch.equal(term.eval()(x), term(x))


COMPILED = """
import torch
from torch import nn
from mmunify.experts.low_rank._context import TokenContext, use_tokens
from mmunify.experts.low_rank._routing import collect_aux, gate_statistics
from mmunify.experts.low_rank.lora_moe import LoRAMoETuner

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))


CASES = [
    ("softmax", "0.up", {}),
    ("sigmoid", "0.up", {}),
    ("top_k", "0.up", {}),
    ("top_p", "0.up", {"gate_input": "task", "ids": 3}),
    ("switch", "0", {"site": "ffn"}),
]
for gate, match, options in CASES:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(Block())
    balance = {"cv_squared": 1.0, "switch": 0.1, "z": 0.1}
    LoRAMoETuner(match, rank=2, num_experts=4, gate=gate, balance=balance, options=options).apply(model)
    for name, parameter in model.named_parameters():
        if name.endswith("low_rank.b"):
            nn.init.normal_(parameter)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = []
    for each in (model, compiled, compiled):
        valid = torch.tensor([[True] * 5, [True, False, True, False, False]])
        with use_tokens(TokenContext(valid=valid, task=torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]]))):
            torch.manual_seed(1)
            out = each(torch.randn(2, 5, 6))
            aux = collect_aux(each)["balance"]
        grads = torch.autograd.grad(out.square().sum() + aux, list(model.parameters()))
        found.append((out, aux, *gate_statistics(each).values(), *grads))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
print("equal")
"""


def test_compiled_in_one_graph_equals_eager_with_losses_and_statistics():
    # In a process of its own: under pytest the shape checker would be traced too.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr


def enable_checkpointing(llama):
    """As transformers switches it on."""
    keywords = {"use_reentrant": False, "context_fn": checkpoint_context_fn}
    llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords)


def wrap_in_checkpoints(llama):
    """As FSDP's users switch it on."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper as wrapper
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    wrapping = partial(wrapper, context_fn=checkpoint_context_fn)
    apply_activation_checkpointing(llama, wrapping, lambda module: isinstance(module, LlamaDecoderLayer))


@pytest.mark.parametrize("switch_on", [enable_checkpointing, wrap_in_checkpoints])
def test_checkpointed_llama_equals_plain_with_two_forwards_before_the_backward(switch_on):
    batches = [(torch.randint(32, (2, 6)), torch.rand(2, 6) < 0.7) for _ in range(2)]
    results = []
    for change in (lambda llama: None, switch_on):
        llama = tiny_llama().train()
        change(llama)
        loss = torch.zeros(())
        for ids, valid in batches:
            with use_tokens(TokenContext(valid=valid)):
                out = llama(input_ids=ids, use_cache=False).last_hidden_state
                loss = loss + out.square().mean() + collect_aux(llama)["balance"]
        assert sorted(gate_statistics(llama)) == sorted(f"layers.{i}.mlp.{n}_proj" for i in (0, 1) for n in NAMES)
        loss.backward()
        results.append({clean_name(name): p.grad for name, p in llama.named_parameters() if p.requires_grad})
    assert len(results[0]) == 2 * 3 * 3
    torch.testing.assert_close(results[1], results[0])


def test_checkpoint_keeps_the_gradients_of_a_single_linear():
    model, x = build(), torch.randn(3, 6, requires_grad=True)
    plain = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    again = checkpoint(model, x, use_reentrant=False, context_fn=checkpoint_context_fn)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), [x, *model.parameters()]), plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"gate": "top_k", "top_k": 9}, r"top_k must be in 1..8 for 8 experts, got 9"),
        ({"balance": "localized_balance", "num_experts": 3}, "must be even, got 3"),
        ({"balance": "localized_balance", "num_experts": [4, 3]}, "must be even, got 3"),
        ({"num_experts": [2, 0]}, "num_experts must be at least 1, got 0"),
        ({"gate": "top_k", "num_experts": [2, 1]}, r"top_k must be in 1..1 for 1 experts, got 2"),
        ({"gate": "top_p", "options": {"top_p": 2}}, r"top_p must be in \(0, 1\], got 2"),
        ({"gate": "task", "balance": {"z": 0.1}}, "gate task learns nothing, so balance must be none, got z"),
        ({"balance": {"z": 0.1, "zz": 0.1}}, "no balance loss named 'zz'"),
        ({"balance_weight": -1.0}, "balance_weight must be at least 0, got -1.0"),
        ({"options": {"temprature": 2.0}}, "no option 'temprature'; did you mean 'temperature'"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        LoRAMoETuner("*", **settings)


def test_recipe_faults_are_found_before_anything_is_built():
    faults = TUNERS.check({"name": "lora_moe", "match": "*", "gate": "soft", "ranks": 2}, "model.tuners.0")
    assert [fault.path for fault in faults] == ["model.tuners.0.gate", "model.tuners.0.ranks"]
    with pytest.raises(RecipeError, match="required by LoRAMoETuner"):
        TUNERS.build({"name": "lora_moe"})


def test_rank_is_checked_per_expert():
    with pytest.raises(UserError, match=r"rank 7 is above 6, the smaller side of 0 \(6 -> 8\)"):
        LoRAMoETuner("*", rank=7).apply(nn.Sequential(nn.Linear(6, 8)))
    assert LoRAMoETuner("*", rank=6, num_experts=8).apply(nn.Sequential(nn.Linear(6, 8))) == ["0"]


def test_experts_per_layer():
    layers = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"up": nn.Linear(6, 8)}) for _ in range(3))})
    names = LoRAMoETuner("*.up", rank=2, num_experts=[2, 4, 8]).apply(layers)
    assert names == [f"layers.{i}.up" for i in range(3)]
    assert [len(layer["up"].low_rank.gate) for layer in layers["layers"]] == [2, 4, 8]
    plain = nn.ModuleList([nn.Linear(6, 8)])
    with pytest.raises(UserError, match=r"num_experts has 2 numbers, but match names modules of 1 layers \(0\)"):
        LoRAMoETuner("0", rank=2, num_experts=[2, 4]).apply(plain)
    assert type(plain[0]) is nn.Linear


def test_a_dropout_mask_per_expert_is_that_of_the_loop():
    model = build(dropout=0.5, options={"dropout_masks": "per_expert"})
    term, x = model[0].low_rank, torch.randn(3, 6)
    weights = (x @ term.gate.T).softmax(-1)
    torch.manual_seed(1)
    experts = [
        nn.functional.dropout(x, 0.5) @ a.T @ b.T for a, b in zip(term.a.chunk(4), term.b.chunk(4, 1), strict=True)
    ]
    torch.manual_seed(1)
    torch.testing.assert_close(term(x), 16.0 * sum(weights[:, i, None] * experts[i] for i in range(4)))
    assert torch.equal(term.eval()(x), term(x))


def test_several_losses_are_weighted_and_summed():
    x, alone = torch.randn(2, 5, 6), []
    for balance in ({"switch": 0.5}, {"z": 0.25}, {"switch": 0.5, "z": 0.25}, {"entropy": -1.0}):
        model = build(balance=balance)
        model(x)
        alone.append(collect_aux(model)["balance"])
    torch.testing.assert_close(alone[0] + alone[1], alone[2])
    assert alone[3] < 0


def test_the_response_mask_counts_learned_tokens_alone():
    model, x = build(balance={"z": 1.0}, options={"mask": "response"}), torch.randn(2, 5, 6)
    response = torch.rand(2, 5) < 0.5
    with use_tokens(TokenContext(response=response)):
        model(x)
        loss = collect_aux(model)["balance"]
    torch.testing.assert_close(loss, (x @ model[0].low_rank.gate.T).logsumexp(-1)[response].square().mean())
    model(x)
    with pytest.raises(UserError, match="^0: mask 'response' needs to know the learned tokens"):
        collect_aux(model)


@pytest.mark.parametrize("gate_input", ["task", "modality"])
def test_a_gate_by_ids_learns_a_row_per_id_and_says_what_is_missing(gate_input):
    model = build(options={"gate_input": gate_input, "ids": 3})
    assert model[0].low_rank.gate.shape == (4, 3)
    with use_tokens(TokenContext(**{gate_input: torch.tensor([[0, 2]])})):
        model(torch.randn(1, 2, 6)).sum().backward()
    assert (model[0].low_rank.gate.grad.abs().amax(0) > 0).tolist() == [True, False, True]
    with pytest.raises(UserError, match=f"^0: its gate reads {gate_input} of every token"):
        model(torch.randn(1, 2, 6))


def test_the_layer_and_its_gate_may_share_a_product():
    model, x = build(), torch.randn(2, 5, 6)
    alone = build(dropout=1e-9)  # masks forbid it
    torch.testing.assert_close(model(x), alone(x))
    assert model[0].low_rank._shares_a_product(x) and not alone[0].low_rank._shares_a_product(x)
