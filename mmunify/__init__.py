"""mmunify: compose unified multimodal LLMs from registered parts.

Public names are imported on first use, so `import mmunify` loads nothing heavy, not even torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "mmunify.checkpoint": ("Bundle", "load_bundle"),
    "mmunify.composer": ("compose",),
    "mmunify.faults": ("Fault",),
    "mmunify.infer.assistant": ("Assistant",),
    "mmunify.model": ("UnifiedModel",),
    "mmunify.recipe": ("Recipe", "Stage", "load_recipe"),
    "mmunify.registry": (
        "ADAPTERS",
        "BACKBONES",
        "DATASETS",
        "DETOKENIZERS",
        "ENCODERS",
        "EXPERTS",
        "HEADS",
        "METRICS",
        "TUNERS",
    ),
    "mmunify.tokens": ("TokenRegistry",),
    "mmunify.types": (
        "Artifact",
        "Embeds",
        "Features",
        "Media",
        "Region",
        "Reply",
        "Sample",
        "TaskCall",
        "Text",
        "Turn",
    ),
}
_MODULES = ("ablate", "errors", "evaluate", "tokens", "train")  # `ablate`, `evaluate`, `train` are called too
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from mmunify import errors, tokens
    from mmunify.ablate.run import ablate
    from mmunify.checkpoint import Bundle, load_bundle
    from mmunify.composer import compose
    from mmunify.evaluate.run import evaluate
    from mmunify.faults import Fault
    from mmunify.infer.assistant import Assistant
    from mmunify.model import UnifiedModel
    from mmunify.recipe import Recipe, Stage, load_recipe
    from mmunify.registry import (
        ADAPTERS,
        BACKBONES,
        DATASETS,
        DETOKENIZERS,
        ENCODERS,
        EXPERTS,
        HEADS,
        METRICS,
        TUNERS,
    )
    from mmunify.tokens import TokenRegistry
    from mmunify.train.stages import train
    from mmunify.types import Artifact, Embeds, Features, Media, Region, Reply, Sample, TaskCall, Text, Turn

__all__ = [
    "ADAPTERS",
    "BACKBONES",
    "DATASETS",
    "DETOKENIZERS",
    "ENCODERS",
    "EXPERTS",
    "HEADS",
    "METRICS",
    "TUNERS",
    "Artifact",
    "Assistant",
    "Bundle",
    "Embeds",
    "Fault",
    "Features",
    "Media",
    "Recipe",
    "Region",
    "Reply",
    "Sample",
    "Stage",
    "TaskCall",
    "Text",
    "TokenRegistry",
    "Turn",
    "UnifiedModel",
    "ablate",
    "compose",
    "errors",
    "evaluate",
    "load_bundle",
    "load_recipe",
    "tokens",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mmunify.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'mmunify' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
