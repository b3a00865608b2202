"""Stacked LoRA-MoE = expert loop; one expert = LoRA = PEFT; B = 0 = the frozen layer; two processes = one."""

import copy

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmunify.experts.low_rank._context import TokenContext, checkpoint_context_fn, use_tokens
from mmunify.experts.low_rank._routing import collect_aux
from mmunify.registry import TUNERS
from tests.two_processes import run_in_two_processes

X, R, D_IN, D_OUT, ALPHA = 4, 3, 12, 10, 6.0
GATES = {
    "softmax": {"gate": "softmax"},
    "tempered": {"gate": "softmax", "options": {"temperature": 0.5}},
    "sigmoid": {"gate": "sigmoid"},
    "top_k": {"gate": "top_k", "top_k": 2},
    "top_k_as_is": {"gate": "top_k", "top_k": 3, "options": {"renormalize": False}},
    "top_p": {"gate": "top_p", "options": {"top_p": 0.6}},
    "top_p_renormalized": {"gate": "top_p", "options": {"top_p": 0.6, "renormalize": True}},
    "switch": {"gate": "switch"},
    "sigmoid_renormalized": {"gate": "sigmoid", "options": {"renormalize": True}},
}


def oracle_weights(name, logits):
    """Gate weights of one token, written from the papers' equations, expert by expert."""
    if name.startswith("sigmoid"):
        weights = [1 / (1 + (-logit).exp()) for logit in logits]
        return weights if name == "sigmoid" else [weight / sum(weights) for weight in weights]
    powers = [(logit / (0.5 if name == "tempered" else 1)).exp() for logit in logits]
    weights = [power / sum(powers) for power in powers]
    kept = oracle_experts(name, weights)
    total = sum(weights[i] for i in kept) if name in ("top_k", "top_p_renormalized") else 1
    return [weights[i] / total if i in kept else weights[i] * 0 for i in range(len(logits))]


def oracle_experts(name, weights):
    """The experts that take part."""
    order = sorted(range(len(weights)), key=lambda i: -weights[i].item())
    if name.startswith("top_p"):
        count = next(n for n in range(1, X + 1) if sum(weights[i] for i in order[:n]) > 0.6)
        return order[:count]
    return order[: {"top_k": 2, "top_k_as_is": 3, "switch": 1}.get(name, X)]


def oracle(name, x, weight, bias, a, b, gate):
    """o = W0 x + (alpha / r) * sum_i w_i B_i A_i x, token by token and expert by expert."""
    rows = []
    for token in x.flatten(0, -2):
        w = oracle_weights(name, gate @ token)
        experts = [b[:, i * R : (i + 1) * R] @ (a[i * R : (i + 1) * R] @ token) for i in range(X)]
        rows.append(weight @ token + bias + ALPHA / R * sum(wi * e for wi, e in zip(w, experts, strict=True)))
    return torch.stack(rows).unflatten(0, x.shape[:-1])


def lively(module, seed=1):
    """Random values in B too, which starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith(("low_rank.b", "lora_B.default.weight")):
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter)
    return module


def mixture(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_IN, D_OUT)).double()
    TUNERS.build({"name": "lora_moe", "match": "0", "rank": R, "num_experts": X, "alpha": ALPHA, **settings}).apply(
        model
    )
    return lively(model)


def tiny_llama(seed=0):
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaModel(LlamaConfig(vocab_size=32, **sizes)).double()


@pytest.mark.parametrize("name", GATES)
def test_stacked_experts_equal_the_loop_forward_and_backward(name):
    model = mixture(**GATES[name])
    x = torch.randn(2, 5, D_IN, dtype=torch.float64, requires_grad=True)
    parts = [x, model[0].weight, model[0].bias, model[0].low_rank.a, model[0].low_rank.b, model[0].low_rank.gate]
    probe = torch.randn(2, 5, D_OUT, dtype=torch.float64)
    ours, theirs = model(x), oracle(name, *parts)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    got = torch.autograd.grad((ours * probe).sum(), parts)
    wanted = torch.autograd.grad((theirs * probe).sum(), parts)
    assert all(grad.abs().max() > 1e-3 for grad in wanted)
    for mine, reference in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)


class Block(nn.Module):
    """The feed-forward block of a Llama, with biases; `after` comes after its last linear."""

    def __init__(self, after=None):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(D_IN, 14), nn.Linear(D_IN, 14)
        self.down_proj, self.after = nn.Linear(14, D_IN), after or nn.Identity()

    def forward(self, x):
        return self.after(self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)))


def block_oracle(name, x, block):
    """y = FFN(x) + sum_i w_i (FFN_i(x) - FFN(x)), where FFN_i has the terms of expert i in all its linears."""
    weights = torch.stack([torch.stack(oracle_weights(name, block.low_rank.gate @ token)) for token in x.flatten(0, 1)])
    outs = []
    for i in [None, *range(X)]:
        plain = Block(block.after).double()
        for at in ("gate_proj", "up_proj", "down_proj"):
            linear, part = getattr(block, at), slice(0, 0) if i is None else slice(i * R, (i + 1) * R)
            change = ALPHA / R * linear.low_rank.b[:, part] @ linear.low_rank.a[part]
            del getattr(plain, at).weight, getattr(plain, at).bias
            getattr(plain, at).weight, getattr(plain, at).bias = linear.weight + change, linear.bias
        outs.append(plain(x).flatten(0, 1))
    mixed = outs[0] + sum(weights[:, i, None] * (outs[i + 1] - outs[0]) for i in range(X))
    return mixed.view_as(x)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "top_k", "switch"])
@pytest.mark.parametrize("after", [None, nn.Tanh()])
def test_blocks_of_experts_equal_the_loop_over_whole_blocks(name, after):
    torch.manual_seed(0)
    model = nn.Sequential(Block(after)).double()
    options = {**GATES[name].get("options", {}), "site": "ffn"}
    node = {"name": "lora_moe", "match": "0", "rank": R, "num_experts": X, "alpha": ALPHA, **GATES[name]}
    assert TUNERS.build({**node, "options": options}).apply(model) == ["0"]
    lively(model)
    x = torch.randn(2, 5, D_IN, dtype=torch.float64, requires_grad=True)
    probe, parts = torch.randn_like(x), [x, *model.parameters()]
    assert len(parts) == 1 + 6 + 6 + 1
    ours, theirs = model(x), block_oracle(name, x, model[0])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for mine, reference in zip(
        torch.autograd.grad((ours * probe).sum(), parts),
        torch.autograd.grad((theirs * probe).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)
        assert reference.abs().max() > 1e-6


def test_the_task_gate_equals_one_lora_per_task():
    model = mixture(gate="task")
    x, task = torch.randn(2, 5, D_IN, dtype=torch.float64), torch.randint(X, (2, 5))
    with use_tokens(TokenContext(task=task)):
        out = model(x)
    assert dict(model[0].low_rank.named_parameters()).keys() == {"a", "b"}
    term, frozen = model[0].low_rank, nn.functional.linear(x, model[0].weight, model[0].bias)
    for expert in range(X):
        part = slice(expert * R, (expert + 1) * R)
        wanted = frozen + ALPHA / R * x @ term.a[part].T @ term.b[:, part].T
        torch.testing.assert_close(out[task == expert], wanted[task == expert], rtol=0, atol=1e-10)


@pytest.mark.parametrize("gate", ["softmax", "top_k"])
def test_top_k_of_all_experts_equals_softmax(gate):
    x = torch.randn(7, D_IN, dtype=torch.float64)
    everything = mixture(gate="top_k", top_k=X, options={"renormalize": gate == "top_k"})
    torch.testing.assert_close(everything(x), mixture(gate="softmax")(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("make", ["mlp", "llama"])
def test_one_expert_equals_lora_equals_peft(make, rslora):
    import peft

    base, match, names = (
        (tiny_llama(), "*.mlp.*_proj", ["gate_proj", "up_proj", "down_proj"])
        if make == "llama"
        else (nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 8)).double(), "[02]", ["0", "2"])
    )
    x = torch.randint(32, (2, 6)) if make == "llama" else torch.randn(2, 6, 12, dtype=torch.float64)
    theirs = peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, use_rslora=rslora)
    )
    lively(theirs.double())
    lora, moe = copy.deepcopy(base), copy.deepcopy(base)
    TUNERS.build({"name": "lora", "match": match, "rank": 4, "alpha": 8, "rslora": rslora}).apply(lora)
    one = {"num_experts": 1, "options": {"rslora": rslora}}
    TUNERS.build({"name": "lora_moe", "match": match, "rank": 4, "alpha": 8, **one}).apply(moe)
    source = dict(theirs.base_model.model.named_modules())
    grads = {}
    for label, model in (("lora", lora), ("moe", moe)):
        for name, module in model.named_modules():
            if name.endswith("low_rank"):
                peer = source[name.removesuffix(".low_rank")]
                module.a.data.copy_(peer.lora_A["default"].weight)
                module.b.data.copy_(peer.lora_B["default"].weight)
        grads[label] = run(model, x)
    reference = run(theirs.base_model.model, x)
    for label in grads:
        torch.testing.assert_close(grads[label]["out"], reference["out"], rtol=0, atol=1e-10)
        for name, grad in grads[label].items():
            if name.endswith(("low_rank.a", "low_rank.b")):
                prefix, half = name.split(".low_rank.")
                peer = reference[f"{prefix}.lora_{half.upper()}.default.weight"]
                torch.testing.assert_close(grad, peer, rtol=0, atol=1e-10)
    assert len(grads["lora"]) - 1 == 2 * len(source_linears(base, names))


def run(model, x):
    """Output, and the gradients of the low-rank parameters."""
    out = model(x)
    out = getattr(out, "last_hidden_state", out)
    low_rank = {n: p for n, p in model.named_parameters() if n.endswith((".a", ".b", "default.weight"))}
    grads = torch.autograd.grad(out.square().sum(), list(low_rank.values()))
    return {"out": out, **dict(zip(low_rank, grads, strict=True))}


def source_linears(model, names):
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.split(".")[-1] in names
    ]


MIXTURES = [{"name": "lora_moe", **settings} for settings in GATES.values()]


@pytest.mark.parametrize("node", [{"name": "lora"}, *MIXTURES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_tuner_changes_no_bit(node, dtype):
    frozen = tiny_llama().to(dtype)
    tuned = copy.deepcopy(frozen)
    TUNERS.build({"match": ["*.mlp.*", "*.self_attn.*_proj"], "rank": 2, **node}).apply(tuned)
    ids = torch.randint(32, (2, 7))
    assert torch.equal(tuned(ids).last_hidden_state, frozen(ids).last_hidden_state)


@pytest.mark.parametrize("node", [*MIXTURES, {"name": "adapter_mixture", "rank": 3, "num_tasks": 1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_tuner_on_blocks_changes_no_bit(node, dtype):
    frozen = tiny_llama().to(dtype)
    tuned = copy.deepcopy(frozen)
    if node["name"] == "lora_moe":
        node = {**node, "options": {**node.get("options", {}), "site": "ffn"}}
    assert len(TUNERS.build({"match": "*.mlp", "rank": 2, **node}).apply(tuned)) == 2
    ids = torch.randint(32, (2, 7))
    assert torch.equal(tuned(ids).last_hidden_state, frozen(ids).last_hidden_state)


def test_seven_billion_model_gets_the_papers_number_of_parameters():
    from transformers import LlamaConfig, LlamaModel

    with torch.device("meta"):
        model = LlamaModel(LlamaConfig())
    model.requires_grad_(False)
    names = TUNERS.build({"name": "lora_moe", "match": "*.mlp.*_proj", "rank": 4, "num_experts": 8}).apply(model)
    assert len(names) == 96
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 51_314_688
    assert all(p.is_meta for p in model.parameters())


LOSSES = ("cv_squared", "localized_balance", "switch", "z", "entropy")


@pytest.mark.parametrize("balance", LOSSES)
def test_padding_changes_no_balance_loss(balance):
    model = mixture(balance=balance, balance_weight=0.5)
    x = torch.randn(2, 6, D_IN, dtype=torch.float64)
    lengths, task = (6, 4), torch.tensor([[1], [0]])
    valid = torch.arange(6) < torch.tensor(lengths)[:, None]
    padded = torch.cat([torch.where(valid[..., None], x, 1e3), torch.randn(2, 3, D_IN, dtype=torch.float64)], 1)
    rows = torch.cat([x[0], x[1, :4]])[None]
    document = torch.tensor([[0] * 6 + [1] * 4])
    losses = [
        aux_loss(model, x, TokenContext(valid=valid, task=task.expand(2, 6))),
        aux_loss(model, padded, TokenContext(valid=nn.functional.pad(valid, (0, 3)), task=task.expand(2, 9))),
        aux_loss(model, rows, TokenContext(task=torch.where(document == 0, 1, 0), document=document)),
    ]
    assert losses[0] > 0
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(3), rtol=0, atol=1e-12)


def aux_loss(model, x, tokens):
    with use_tokens(tokens):
        model(x)
        return collect_aux(model)["balance"].detach()


def test_two_checkpointed_forwards_before_one_backward_equal_plain_ones():
    x = [torch.randn(2, 5, D_IN, dtype=torch.float64) for _ in range(2)]
    masks = [torch.rand(2, 5) < 0.5 for _ in range(2)]

    def grads(context_fn):
        model = mixture(balance="cv_squared", balance_weight=3.0)
        losses = []
        for values, valid in zip(x, masks, strict=True):
            with use_tokens(TokenContext(valid=valid)):
                keyword = {"use_reentrant": False, "context_fn": context_fn} if context_fn else None
                out = checkpoint(model, values, **keyword) if keyword else model(values)
                losses.append(out.square().mean() + collect_aux(model)["balance"])
        sum(losses).backward()
        return [p.grad for p in model.parameters()]

    for mine, reference in zip(grads(checkpoint_context_fn), grads(None), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------- processes


def batch():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4, 5, D_IN, dtype=torch.float64, generator=generator)
    valid = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    return x, TokenContext(valid=valid, task=torch.tensor([[0], [1], [1], [0]]).expand(4, 5))


def balance_grads(balance, rows):
    x, tokens = batch()
    model = mixture(balance=balance, balance_weight=1.0)
    with use_tokens(TokenContext(valid=tokens.valid[rows], task=tokens.task[rows])):
        model(x[rows])
        loss = collect_aux(model)["balance"]
    loss.backward()
    return loss.detach(), model[0].low_rank.gate.grad


def sharded_output():
    """Largest difference, in output or gradients, between FSDP2 over two ranks and no sharding."""
    from torch.distributed.fsdp import fully_shard

    plain = nn.Sequential(*(mixture()[0] if i % 2 else nn.Linear(D_OUT, D_IN).double() for i in range(4)))
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(".low_rank." in name)
    sharded = copy.deepcopy(plain)
    for layer in (sharded[1], sharded[3], sharded):
        fully_shard(layer)
    x = torch.arange(2.0 * D_OUT).sin().view(2, D_OUT).double()
    out = [model(x) for model in (plain, sharded)]
    for each in out:
        each.square().sum().backward()
    learned = [[p for p in model.parameters() if p.requires_grad] for model in (plain, sharded)]
    pairs = [(a.grad, b.grad.full_tensor()) for a, b in zip(*learned, strict=True)] + [tuple(out)]
    return max((a - b).abs().max().item() for a, b in pairs)


def parallel_grads(rows, wrap, ranks):
    """Gradients of a summed loss (times the number of ranks, since DDP averages them) and of balance losses."""
    x, tokens = batch()
    model = mixture(balance={"cv_squared": 1.0, "switch": 0.5, "z": 0.1})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".low_rank." in name)
    wrapped = wrap(model)
    with use_tokens(TokenContext(valid=tokens.valid[rows], task=tokens.task[rows])):
        (ranks * wrapped(x[rows]).square().sum() + collect_aux(model)["balance"]).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def run_rank(rank):
    found = {}
    for balance in LOSSES:
        loss, grad = balance_grads(balance, slice(0, 1) if rank == 0 else slice(1, 4))
        dist.all_reduce(grad)
        found[balance] = (loss, grad / 2)
    found["sharded"] = sharded_output()
    found["ddp"] = parallel_grads(slice(0, 1) if rank == 0 else slice(1, 4), nn.parallel.DistributedDataParallel, 2)
    return found


def test_two_processes_equal_one(tmp_path):
    found = run_in_two_processes(run_rank, tmp_path)
    for balance in LOSSES:
        torch.testing.assert_close(found[balance], balance_grads(balance, slice(0, 4)), rtol=0, atol=1e-12)
    assert found["sharded"] < 1e-12
    whole = parallel_grads(slice(0, 4), lambda model: model, 1)
    assert whole.keys() == {"0.low_rank.a", "0.low_rank.b", "0.low_rank.gate"}
    torch.testing.assert_close(found["ddp"], whole, rtol=0, atol=1e-10)
