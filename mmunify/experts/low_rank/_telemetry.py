"""Which experts do which tasks use? Running means of gate weights, by layer and task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist

from mmunify.errors import UserError
from mmunify.experts.low_rank._routing import gated_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFigures:
    """One gated layer.

    Attributes:
        weights: mean weight by [task][expert]; zeros for a task without tokens.
        entropy: by task, of a token's weights made to sum to one, in nats (0 = one expert, log X = all alike).
        tokens: by task, how many were counted.
    """

    weights: list[list[float]]
    entropy: list[float]
    tokens: list[float]

    def mean(self) -> list[float]:
        """Mean weight per expert over all tokens."""
        total = max(1.0, sum(self.tokens))
        columns = zip(*self.weights, strict=True)
        return [sum(n * w for n, w in zip(self.tokens, column, strict=True)) / total for column in columns]

    def mean_entropy(self) -> float:
        """Mean entropy over all tokens."""
        pairs = zip(self.tokens, self.entropy, strict=True)
        return sum(n * e for n, e in pairs) / max(1.0, sum(self.tokens))

    def information(self) -> float:
        """Mutual information of task and expert in nats: 0 when all tasks use the experts alike (no specialisation)."""
        shares = torch.tensor(self.tokens, dtype=torch.float64)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        joint = weights / weights.sum(1, keepdim=True).clamp(min=1e-30) * (shares / shares.sum().clamp(min=1))[:, None]
        expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        kept = joint > 0
        return float((joint[kept] * (joint[kept] / expected[kept]).log()).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigures:
    """What gates did, by layer name.

    Attributes:
        tasks: names of the rows.
        layers: name -> figures.
    """

    tasks: tuple[str, ...]
    layers: Mapping[str, LayerFigures]

    def scalars(self) -> dict[str, float]:
        """Numbers to log: entropy, information and every expert's mean weight per layer, and the layers' means."""
        found: dict[str, float] = {}
        for name, layer in self.layers.items():
            found[f"gate/{name}/entropy"] = layer.mean_entropy()
            found[f"gate/{name}/information"] = layer.information()
            found |= {f"gate/{name}/expert{i}": weight for i, weight in enumerate(layer.mean())}
        for key in ("entropy", "information") if self.layers else ():
            values = [value for name, value in found.items() if name.endswith(f"/{key}")]
            found[f"gate/{key}"] = sum(values) / len(values)
        return found

    def average(self) -> LayerFigures | None:
        """The mean over layers; None where they have different numbers of experts."""
        layers = list(self.layers.values())
        if not layers or len({len(layer.weights[0]) for layer in layers}) > 1:
            return None
        return LayerFigures(
            weights=torch.tensor([layer.weights for layer in layers], dtype=torch.float64).mean(0).tolist(),
            entropy=torch.tensor([layer.entropy for layer in layers], dtype=torch.float64).mean(0).tolist(),
            tokens=layers[0].tokens,
        )

    def plain(self) -> dict[str, Any]:
        """For a JSON report."""
        return {"tasks": list(self.tasks), "layers": {name: asdict(layer) for name, layer in self.layers.items()}}


class GateTelemetry:
    """Sums up gate weights over forwards: `update` after each, `figures` when they are wanted.

    Sums stay on the layers' device, so an update waits for nothing.

    Args:
        tasks: names of the rows of the task table, in order ("none", "segment", ...); none = tasks aren't told apart.
    """

    def __init__(self, tasks: Sequence[str] = ()) -> None:
        self.tasks = tuple(tasks) or ("all",)
        self._apart = bool(tasks)
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Count the last forward of all gated layers inside `module`.

        Raises:
            UserError: a task id without a name.
        """
        for name, layer in gated_layers(module):
            last = layer.last_weights()
            if last is None:
                continue
            weights, tokens = last
            valid, task = tokens.flat("valid", len(weights)), tokens.flat("task", len(weights))
            ids = task if self._apart and task is not None else torch.zeros_like(weights[:, 0], dtype=torch.long)
            self._add(name, weights if valid is None else weights[valid], ids if valid is None else ids[valid])

    def _add(self, name: str, weights: Float[Tensor, "n X"], ids: Tensor) -> None:
        if ids.device.type == "cpu" and ids.numel() and int(ids.max()) >= len(self.tasks):
            raise UserError(f"task id {int(ids.max())} has no name, there are {len(self.tasks)}: {self.tasks}")
        share = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
        entropy = -torch.xlogy(share, share).sum(-1, keepdim=True)
        rows = torch.cat([weights, entropy, torch.ones_like(entropy)], dim=-1).double()
        sums = rows.new_zeros(len(self.tasks), rows.shape[-1]).index_add(0, ids, rows)
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def figures(self, over_ranks: bool = True) -> GateFigures:
        """Means so far; over all processes when every one of them calls this.

        Args:
            over_ranks: False = this process alone.
        """
        several = over_ranks and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        layers = {}
        for name, kept in self._sums.items():
            sums = kept.clone()
            if several:
                dist.all_reduce(sums)
            count = sums[:, -1]
            means = (sums[:, :-1] / count.clamp(min=1)[:, None]).cpu()
            layers[name] = LayerFigures(
                weights=means[:, :-1].tolist(), entropy=means[:, -1].tolist(), tokens=count.tolist()
            )
        return GateFigures(tasks=self.tasks, layers=layers)

    def reset(self) -> None:
        """Start anew."""
        self._sums = {}
