"""Low-rank experts inside a frozen backbone. The tuners are parts; here stands what code around a model needs of them.

Names are imported on first use, so that listing the tuners loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmunify.experts.low_rank._context import TokenContext, checkpoint_context_fn, current_tokens, use_tokens
    from mmunify.experts.low_rank._heat_map import draw_heat_map
    from mmunify.experts.low_rank._inject import without_low_rank
    from mmunify.experts.low_rank._routing import collect_aux, gate_statistics
    from mmunify.experts.low_rank._telemetry import GateFigures, GateTelemetry

_HOMES = {
    "TokenContext": "_context",
    "checkpoint_context_fn": "_context",
    "current_tokens": "_context",
    "use_tokens": "_context",
    "draw_heat_map": "_heat_map",
    "without_low_rank": "_inject",
    "collect_aux": "_routing",
    "gate_statistics": "_routing",
    "GateFigures": "_telemetry",
    "GateTelemetry": "_telemetry",
}

__all__ = [
    "GateFigures",
    "GateTelemetry",
    "TokenContext",
    "checkpoint_context_fn",
    "collect_aux",
    "current_tokens",
    "draw_heat_map",
    "gate_statistics",
    "use_tokens",
    "without_low_rank",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
