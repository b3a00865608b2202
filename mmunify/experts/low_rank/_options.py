"""Finer settings of LoRA-MoE, and what they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from mmunify.errors import UserError
from mmunify.experts.low_rank._balance import Balance, make_balance
from mmunify.experts.low_rank._gates import make_gate
from mmunify.experts.low_rank._inject import clean_name
from mmunify.experts.low_rank._router import GateInput, Router
from mmunify.registry import did_you_mean
from mmunify.signature import fits, type_name


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOptions:
    """Finer settings of a mixture.

    Attributes:
        site: "linear" = a mixture on every linear that `match` names (LoRAMoE); "ffn" = `match` names whole blocks,
            one gate per block, and every linear inside gets experts (MixLoRA).
        gate_input: what the gate reads: "layer" = the input of the layer, "task" or "modality" = a learned row per
            id, "hidden" = the last hidden states of a first pass without low-rank terms (X-LoRA).
        ids: rows of the gate, for "task" and "modality".
        temperature: divides the gate's logits.
        top_p: sum of weights that gate "top_p" keeps.
        renormalize: whether weights sum to one; null = as published: yes for "top_k", no for the others.
        jitter: what the gate reads is multiplied by noise in 1 - jitter .. 1 + jitter, while training.
        float32_gate: logits in float32 also where the layer computes in fewer bits.
        dropout_masks: "shared" = one mask for all experts; "per_expert" = one each, as in LoRAMoE's code, which takes
            a product and a copy of the input per expert.
        rslora: multiply by alpha / sqrt(rank) instead of alpha / rank.
        delta: how far "localized_balance" pulls the two halves of the experts apart.
        tasks: task indices whose documents belong to the first half, for "localized_balance".
        mask: tokens that auxiliary losses count: "all", "non_pad", or "response" (those that are learned).
        reduce: "all_ranks" = losses of the global batch; "local" = of each rank's own.
    """

    site: Literal["linear", "ffn"] = "linear"
    gate_input: GateInput = "layer"
    ids: int = 64
    temperature: int | float = 1.0
    top_p: int | float = 0.8
    renormalize: bool | None = None
    jitter: int | float = 0.0
    float32_gate: bool = True
    dropout_masks: Literal["shared", "per_expert"] = "shared"
    rslora: bool = False
    delta: int | float = 0.1
    tasks: Sequence[int] = (1,)
    mask: Literal["all", "non_pad", "response"] = "non_pad"
    reduce: Literal["all_ranks", "local"] = "all_ranks"

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise UserError(f"LoRAMoETuner: options.jitter must be in [0, 1), got {self.jitter}")
        if self.ids < 1:
            raise UserError(f"LoRAMoETuner: options.ids must be at least 1, got {self.ids}")
        if self.site == "ffn" and self.dropout_masks == "per_expert":
            raise UserError("LoRAMoETuner: options.dropout_masks per_expert is for site linear, got site ffn")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "MixtureOptions":
        """From a recipe's mapping.

        Raises:
            UserError: an option that doesn't exist, or a value that doesn't fit.
        """
        known, hints = [field.name for field in fields(cls)], get_type_hints(cls)
        for key, value in given.items():
            if key not in known:
                raise UserError(
                    f"LoRAMoETuner has no option {key!r}{did_you_mean(key, known)} Known: {', '.join(known)}"
                )
            if not fits(value, hints[key]):
                raise UserError(f"LoRAMoETuner: options.{key} wants {type_name(hints[key])}, got {value!r}")
        return cls(**given)

    def router(self, gate: str, num_experts: int, top_k: int, hidden_dim: int = 0) -> Router:
        """How a layer of that many experts weighs them.

        Raises:
            UserError: an unknown gate, or a number out of range.
        """
        k, p = top_k, self.top_p
        weigh = None
        if gate != "task":
            weigh = make_gate(gate, num_experts, k, self.temperature, self.renormalize, p)
        return Router(
            num_experts=num_experts,
            weigh=weigh,
            reads=self.gate_input,
            ids=self.ids,
            hidden_dim=hidden_dim,
            jitter=self.jitter,
            float32=self.float32_gate,
        )

    def losses(self, weights: Mapping[str, int | float], num_experts: int) -> list[tuple[float, Balance]]:
        """(weight, loss) of every auxiliary loss whose weight isn't zero.

        Raises:
            UserError: an unknown loss, or an odd number of experts for "localized_balance".
        """
        over_ranks = self.reduce == "all_ranks"
        made = [(w, make_balance(name, num_experts, self.delta, self.tasks, over_ranks)) for name, w in weights.items()]
        return [(float(weight), loss) for weight, loss in made if weight and loss is not None]


def experts_per_layer(title: str, names: Sequence[str], num_experts: int | Sequence[int]) -> dict[str, int]:
    """Number of experts of every matched module.

    Args:
        title: who asks, for messages.
        names: of the modules; a layer is what shares a name up to its first number ("layers.3").
        num_experts: for all layers, or one number per layer that is matched, in order (MoLA, arXiv 2402.08562).

    Raises:
        UserError: another number of layers; the message names them.
    """
    if isinstance(num_experts, int):
        return dict.fromkeys(names, num_experts)
    layers = list(dict.fromkeys(map(_layer_of, names)))
    if len(num_experts) != len(layers):
        some = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        raise UserError(
            f"{title}: num_experts has {len(num_experts)} numbers, but match names modules of {len(layers)} layers "
            f"({some}); give one number per layer"
        )
    by_layer = dict(zip(layers, num_experts, strict=True))
    return {name: by_layer[_layer_of(name)] for name in names}


def _layer_of(name: str) -> str:
    pieces = clean_name(name).split(".")
    numbers = [place for place, piece in enumerate(pieces) if piece.isdigit()]
    return ".".join(pieces[: numbers[0] + 1]) if numbers else name
