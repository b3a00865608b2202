"""What LoRA-MoE costs: `lora_moe` beside a loop over experts and PEFT's LoRA of the same total rank.

    python benchmarks/lora_moe.py                                   # CPU, float32: one linear, one Llama layer
    python benchmarks/lora_moe.py --device cuda --dtype bfloat16 --tokens 8192 --width 4096 --inner 11008
    python benchmarks/lora_moe.py --json lora_moe.json

Every contender does a forward and a backward pass on the same input, with frozen weights; contenders take turns, so
that what else the machine does hits all alike, and `--busy` counts CPU time instead of the clock's. Ratios are medians
over the ratios of each turn. Memory is that of the tensors that autograd keeps between the two passes, parameters not
counted.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmunify.registry import TUNERS

EXPERTS, RANK, ALPHA = 8, 4, 32


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one contender costs: milliseconds, MiB, and both as multiples of PEFT's LoRA and as shares of the loop."""

    milliseconds: float
    mebibytes: float
    time_over_peft: float
    memory_over_peft: float
    loop_time_over_it: float
    loop_memory_over_it: float


class ExpertLoop(nn.Module):
    """The straightforward form: one small pair of linears after the other, weighed and summed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.base, sizes = linear, (linear.in_features, linear.out_features)
        self.gate = nn.Linear(sizes[0], EXPERTS, bias=False)
        self.down = nn.ModuleList(nn.Linear(sizes[0], RANK, bias=False) for _ in range(EXPERTS))
        self.up = nn.ModuleList(nn.Linear(RANK, sizes[1], bias=False) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        """[*rows d_in] -> [*rows d_out]."""
        result = self.base(x)
        weights = self.gate(x).float().softmax(-1).to(x.dtype)
        for i in range(EXPERTS):
            result = result + weights[..., i, None] * self.up[i](self.down[i](x)) * (ALPHA / RANK)
        return result


def with_mixture(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Ours."""
    node = {"name": "lora_moe", "match": list(names), "rank": RANK, "num_experts": EXPERTS, "alpha": ALPHA}
    TUNERS.build(node).apply(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".low_rank." in name)
    return model


def with_loop(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The loop over experts in place of the same linears."""
    for name in names:
        parent, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        loop = ExpertLoop(linear).to(linear.weight.device, linear.weight.dtype)
        setattr(model.get_submodule(parent), last, loop)
    return model


def with_peft(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """PEFT's LoRA of the same total rank on the same linears."""
    import peft

    config = peft.LoraConfig(r=EXPERTS * RANK, lora_alpha=ALPHA * EXPERTS, target_modules=list(names))
    return peft.get_peft_model(model, config).base_model.model


CONTENDERS: dict[str, Callable[[nn.Module, Sequence[str]], nn.Module]] = {
    "lora_moe": with_mixture,
    "peft": with_peft,
    "loop": with_loop,
    "frozen": lambda model, names: model,
}


def one_linear(width: int, inner: int) -> tuple[nn.Module, list[str]]:
    """A linear alone."""
    return nn.Sequential(nn.Linear(width, inner, bias=False)), ["0"]


def llama_layer(width: int, inner: int) -> tuple[nn.Module, list[str]]:
    """A decoder layer, tuned in its feed-forward block."""
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // 64}
    model = LlamaModel(LlamaConfig(vocab_size=8, num_hidden_layers=1, **sizes))
    return model, [f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]


def run_forward(model: nn.Module, x: Tensor) -> Tensor:
    """One pass; a Llama takes embeddings."""
    if isinstance(model, nn.Sequential):
        return model(x)
    return model(inputs_embeds=x, use_cache=False).last_hidden_state


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, every storage once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run_forward(model, x)
    total = sum(size for pointer, size in kept.items() if pointer not in own)
    del out
    return total


def seconds(model: nn.Module, x: Tensor, repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of one forward and backward pass, the mean over `repeats`."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    start = clock()
    for _ in range(repeats):
        run_forward(model, x).sum().backward()
    wait()
    return (clock() - start) / repeats


def measure(
    make: Callable[[], tuple[nn.Module, list[str]]], x: Tensor, turns: int, repeats: int, clock: Callable[[], float]
) -> dict[str, Cost]:
    """Costs of all contenders."""
    torch.manual_seed(0)
    frozen, names = make()
    frozen = frozen.to(x.device, x.dtype).requires_grad_(False)
    models = {name: change(copy.deepcopy(frozen), names).to(x.device) for name, change in CONTENDERS.items()}
    memory = {name: kept_bytes(model, x) for name, model in models.items()}
    for model in models.values():
        seconds(model, x, 2)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(turns):
        for name, model in models.items():
            times[name].append(seconds(model, x, repeats, clock))
    return {name: _cost(name, times, memory) for name in models}


def _cost(name: str, times: dict[str, list[float]], memory: dict[str, int]) -> Cost:
    over_peft = [mine / peft for mine, peft in zip(times[name], times["peft"], strict=True)]
    loop_over = [loop / mine for mine, loop in zip(times[name], times["loop"], strict=True)]
    return Cost(
        milliseconds=1e3 * statistics.median(times[name]),
        mebibytes=memory[name] / 2**20,
        time_over_peft=statistics.median(over_peft),
        memory_over_peft=memory[name] / memory["peft"],
        loop_time_over_it=statistics.median(loop_over),
        loop_memory_over_it=memory["loop"] / memory[name] if memory[name] else float("inf"),
    )


def table(title: str, costs: dict[str, Cost]) -> str:
    """Markdown."""
    lines = [f"| {title} | ms | MiB kept | time / PEFT | memory / PEFT | loop's time / its | loop's memory / its |"]
    lines.append("|---|" + "---:|" * 6)
    for name, c in costs.items():
        numbers = (c.time_over_peft, c.memory_over_peft, c.loop_time_over_it, c.loop_memory_over_it)
        ratios = [f"{number:.2f}" if number < float("inf") else "" for number in numbers]
        cells = [f"{c.milliseconds:.1f}", f"{c.mebibytes:.2f}", *ratios]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--inner", type=int, default=2816)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--busy", action="store_true", help="count the process's own CPU time (one thread)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    clock = time.process_time if args.busy else time.perf_counter
    torch.manual_seed(0)
    x = torch.randn(1, args.tokens, args.width, device=args.device, dtype=getattr(torch, args.dtype))
    x.requires_grad_()
    machine = torch.cuda.get_device_name() if x.is_cuda else f"{platform.processor() or platform.machine()}"
    print(
        f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.dtype}, {args.tokens} tokens"
    )
    found = {}
    for title, make in (
        (f"linear {args.width} -> {args.inner}", lambda: one_linear(args.width, args.inner)),
        (f"Llama layer {args.width}, {args.inner}", lambda: llama_layer(args.width, args.inner)),
    ):
        found[title] = measure(make, x, args.turns, args.repeats, clock)
        print("\n" + table(title, found[title]))
    if args.json:
        args.json.write_text(
            json.dumps({t: {n: asdict(c) for n, c in cs.items()} for t, cs in found.items()}, indent=1)
        )


if __name__ == "__main__":
    main()
