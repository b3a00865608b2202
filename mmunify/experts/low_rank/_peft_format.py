"""PEFT's LoRA adapters on disk: `adapter_config.json` beside `adapter_model.safetensors`."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmunify.errors import UserError
from mmunify.experts.low_rank._foreign_names import refuse_others

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<linear>.+)\.lora_(?P<half>[AB])(?:\.\w+)?\.weight")
_UNSUPPORTED = ("use_dora", "lora_bias", "use_qalora", "use_bdlora", "arrow_config", "fan_in_fan_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTensors:
    """One linear of an adapter.

    Attributes:
        a: [R d_in].
        b: [d_out R].
        alpha: the term is multiplied by alpha / R, or alpha / sqrt(R).
    """

    a: Tensor
    b: Tensor
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        linears: its tensors by the linear's name in the model that it was made for.
        rslora: whether alpha is divided by sqrt(R).
        dropout: of the term's input, in training.
        base: the model that it was made for, as PEFT records it.
    """

    linears: Mapping[str, AdapterTensors]
    rslora: bool = False
    dropout: float = 0.0
    base: str | None = field(default=None)


def read_adapter(path: str | Path) -> Adapter:
    """An adapter from a folder, or from a hub repository.

    Raises:
        UserError: a file is missing, the adapter is no plain LoRA, or a matrix has no partner.
    """
    folder = _folder(path)
    title = f"adapter {path}"
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{title}: has no {name}; a LoRA adapter of PEFT has {CONFIG} and {WEIGHTS}")
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    _check_plain_lora(title, config)
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    found = {name: match for name in state if (match := _NAME.fullmatch(name))}
    refuse_others(title, state, found, "lora_A or lora_B of a linear")
    halves: dict[str, dict[str, Tensor]] = {}
    for name, match in found.items():
        halves.setdefault(match["linear"], {})[match["half"]] = state[name]
    linears = {name: _pair(title, name, pair, config) for name, pair in halves.items()}
    return Adapter(
        linears=linears,
        rslora=bool(config.get("use_rslora")),
        dropout=float(config.get("lora_dropout") or 0.0),
        base=config.get("base_model_name_or_path"),
    )


def write_adapter(folder: str | Path, adapter: Adapter, targets: Sequence[str], prefix: str = "") -> Path:
    """Write an adapter as PEFT reads it.

    Args:
        folder: where to; made if missing.
        adapter: names as the model has them.
        targets: `target_modules`: names or their last pieces, without `prefix`.
        prefix: in front of every name ("model." for a causal model around the one that was tuned).
    """
    from safetensors.torch import save_file

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, tensors in adapter.linears.items():
        start = f"base_model.model.{prefix}{name}.lora_"
        state[f"{start}A.weight"] = tensors.a.detach().contiguous()
        state[f"{start}B.weight"] = tensors.b.detach().contiguous()
    save_file(state, place / WEIGHTS, metadata={"format": "pt"})
    ranks = {f"{prefix}{name}": len(tensors.a) for name, tensors in adapter.linears.items()}
    alphas = {f"{prefix}{name}": _plain(tensors.alpha) for name, tensors in adapter.linears.items()}
    rank, alpha = _most(list(ranks.values())), _most(list(alphas.values()))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.rslora,
        "target_modules": [f"{prefix}{name}" if "." in name else name for name in targets],
        "rank_pattern": {_exactly(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {_exactly(name): value for name, value in alphas.items() if value != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    (place / CONFIG).write_text(json.dumps(config, indent=2), "utf-8")
    return place


def scaling_of(alpha: float, rank: int, rslora: bool) -> float:
    """What the term is multiplied by."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def _pair(title: str, name: str, pair: Mapping[str, Tensor], config: Mapping[str, Any]) -> AdapterTensors:
    if pair.keys() != {"A", "B"}:
        raise UserError(f"{title}: {name} has lora_{' and lora_'.join(sorted(pair))} alone; A and B belong together")
    a, b = pair["A"], pair["B"]
    rank = _pattern(config.get("rank_pattern"), name, config["r"])
    if not len(a) == b.shape[1] == rank:
        raise UserError(
            f"{title}: {name} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, but {CONFIG} says rank {rank}"
        )
    return AdapterTensors(a=a, b=b, alpha=float(_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])))


def _check_plain_lora(title: str, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{title}: its peft_type is {config.get('peft_type')!r}, but only LORA can be read")
    used = [key for key in _UNSUPPORTED if config.get(key)]
    if used:
        raise UserError(f"{title}: uses {', '.join(used)}, which is more than plain LoRA; merge it with peft instead")


def _pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """PEFT's rule: the first key that, as a regular expression, is the name or an ending of it."""
    return next((v for key, v in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", name)), default)


def _exactly(name: str) -> str:
    return "^" + re.escape(name)


def _most(values: list[Any]) -> Any:
    return max(dict.fromkeys(values), key=values.count)


def _plain(value: float) -> int | float:
    """An integer where it is one but for rounding."""
    return round(value) if abs(value - round(value)) < 1e-9 * max(1.0, abs(value)) else value


def _folder(path: str | Path) -> Path:
    local = Path(path).expanduser()
    if local.exists() or str(path).startswith((".", "/", "~")):
        return local
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), allow_patterns=[CONFIG, WEIGHTS]))
