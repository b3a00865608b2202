"""The typed head of a recipe. Nodes (`{name: ..., **kwargs}`) are free here: signatures are their schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING as REQUIRED

from mmunify.faults import Fault, did_you_mean
from mmunify.signature import fits, type_name

SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw", "adamw_8bit")
MIXES = ("sample", "source", "task")


TRAINER_KEYS = {
    "strategy": "Lightning's, or fsdp2, or {name: fsdp2, wrap: [globs], meta: true, cpu_offload: true}, or "
    "deepspeed_stage_1, deepspeed_stage_2, deepspeed_stage_3",
    "recompute": "whether layers throw their activations away and make them again in the backward pass",
    "compile": "true, or a backend: layers are compiled",
    "loggers": "csv, tensorboard, wandb; default: csv, and tensorboard where it is installed",
}
"""What `trainer:` takes beside (or, for the strategy, beyond) the arguments of `lightning.Trainer`."""


def _list() -> Any:
    return field(default_factory=list)


def _dict() -> Any:
    return field(default_factory=dict)


@dataclass(kw_only=True)
class ParameterGroup:
    """Parameters with their own rate: `{match: glob, lr: ..., weight_decay: ...}`; what is left out is the stage's."""

    match: str = REQUIRED
    lr: float | None = field(default=None, metadata={"above": 0})
    weight_decay: float | None = field(default=None, metadata={"least": 0})


@dataclass(kw_only=True)
class Optim:
    """The optimiser of a stage.

    Attributes:
        name: of the optimiser.
        lr: peak rate.
        weight_decay: of tensors with two or more dimensions.
        betas: of AdamW.
        eps: of AdamW: what keeps its step short where gradients are about as small.
        warmup: steps of the linear warm-up, or their share of the stage when below 1.
        schedule: what follows the warm-up.
        floor: share of the peak rate that is left at the last step.
        groups: see `ParameterGroup`; the last one that matches a parameter decides.
    """

    name: str = field(default="adamw", metadata={"choices": OPTIMIZERS})
    lr: float = field(default=1e-3, metadata={"above": 0})
    weight_decay: float = field(default=0.0, metadata={"least": 0})
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = field(default=1e-8, metadata={"above": 0})
    warmup: float = field(default=0.03, metadata={"least": 0})
    schedule: str = field(default="cosine", metadata={"choices": SCHEDULES})
    floor: float = field(default=0.0, metadata={"least": 0})
    groups: list[dict[str, Any]] = field(default_factory=list, metadata={"items": ParameterGroup})


@dataclass(kw_only=True)
class Stage:
    """What learns, on which data, for how long.

    Attributes:
        name: of the stage; overrides may use it (`stages.adapt.steps=10`).
        learns: ordered globs over clean parameter names; the last match wins, `!` excludes.
        steps: optimiser steps. A stage has exactly one of steps, epochs and tokens; what it leaves out is 0 or null.
        epochs: how often to draw as many samples as all data sets have together.
        tokens: positions to see, padding not counted; reached on average.
        batch_size: samples per step and process.
        batch_tokens: largest number of positions of a batch, padding included; where the samples of a step have more,
            they become several batches.
        packing: put several samples into one row, up to `max_length`; they don't see each other.
        data: `{name: ..., weight: ..., **kwargs}` nodes; unless `mix: sample`, a node may have a `batch_size`.
        mix: what one batch may hold: any "sample", samples of one "source", or of one "task" (and source).
        temperature: T weights a data set by weight * size ** (1 / T); null = by its weight alone.
        bad_samples: share of samples that may be left out because they can't be used; more end the run, 0 = the first.
        optim: see `Optim`.
        weights: loss weights that differ from the model's; a head of weight 0 is not run.
        model: overrides of the recipe's model in this stage.
        fresh: globs of tensors that the hand-over may start anew.
        accumulate: batches per step.
        clip: largest gradient norm; 0 = no clipping.
        allow_idle: globs of learning tensors that may stay without a gradient.
        precision: Lightning's, for this stage alone.
        start: folder of a bundle or a run that the stage starts from, instead of what the stage before left.
        ema: decay of a running mean of what learns, which the stage leaves behind; 0 = no mean.
        max_dropped: steps in a row that may be left out for a loss or a gradient that isn't finite.
        num_workers: processes that prepare data.
        gradient_cosine: steps between two looks at how the gradients of a step's tasks lie to each other; 0 = none.
    """

    name: str = REQUIRED
    learns: list[str] = _list()
    steps: int = field(default=0, metadata={"least": 0})
    epochs: float | None = field(default=None, metadata={"above": 0})
    tokens: int | None = field(default=None, metadata={"above": 0})
    batch_size: int = field(default=8, metadata={"above": 0})
    batch_tokens: int | None = field(default=None, metadata={"least": 32})
    packing: bool = False
    data: list[dict[str, Any]] = _list()
    mix: str = field(default="sample", metadata={"choices": MIXES})
    temperature: float | None = field(default=None, metadata={"above": 0})
    bad_samples: float = field(default=0.01, metadata={"least": 0, "below": 1})
    optim: Optim = field(default_factory=Optim)
    weights: dict[str, float] = _dict()
    model: dict[str, Any] = _dict()
    fresh: list[str] = _list()
    accumulate: int = field(default=1, metadata={"above": 0})
    clip: float = field(default=1.0, metadata={"least": 0})
    allow_idle: list[str] = _list()
    precision: str | None = None
    start: str | None = None
    ema: float = field(default=0.0, metadata={"least": 0, "below": 1})
    max_dropped: int = field(default=10, metadata={"above": 0})
    num_workers: int = field(default=0, metadata={"least": 0})
    gradient_cosine: int = field(default=0, metadata={"least": 0})

    def selects(self, name: str) -> bool:
        """Whether a parameter of this clean name learns in the stage."""
        learns = False
        for glob in self.learns:
            if fnmatchcase(name, glob.removeprefix("!")):
                learns = not glob.startswith("!")
        return learns


@dataclass(kw_only=True)
class ModelNodes:
    """The nodes of the model, as `mmunify.composer.compose` takes them."""

    encoders: dict[str, Any] = _dict()
    adapters: dict[str, Any] = _dict()
    backbone: dict[str, Any] | None = None
    tuners: list[dict[str, Any]] = _list()
    heads: dict[str, Any] = _dict()
    detokenizers: dict[str, Any] = _dict()
    weights: dict[str, float] = _dict()


@dataclass(kw_only=True)
class Tokens:
    """Special tokens.

    Attributes:
        tasks: names of the tasks, one pair each.
        grounding: name of the pair around boxes.
        bins: 0 = coordinates are decimals; above 0 = SEED-X's boxes of location tokens (published: 224).
    """

    tasks: list[str] = _list()
    grounding: str = "box"
    bins: int = field(default=0, metadata={"least": 0})


@dataclass(kw_only=True)
class Evaluation:
    """What `mmunify eval` runs by default: protocols by name (none given = all), samples per protocol."""

    protocols: list[str] = _list()
    num_samples: int = field(default=200, metadata={"above": 0})


@dataclass(kw_only=True)
class Ablation:
    """What `mmunify ablate` compares.

    Attributes:
        arms: name -> what differs, written as a recipe whose base is this one.
        seeds: of the runs of every arm.
        vary: the first stage that a seed reaches; stages before it keep the recipe's seed. Default: the first stage.
        before: a stage whose bundle is measured too, to compare with.
        measures: columns of the table: title -> "protocol/metric", or several whose mean it is. Default: everything.
    """

    arms: dict[str, dict[str, Any]] = _dict()
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    vary: str = ""
    before: str = ""
    measures: dict[str, Any] = _dict()


@dataclass(kw_only=True)
class Cache:
    """Where features of frozen encoders are kept between steps and runs.

    Attributes:
        path: folder, shared by processes and runs; null = nothing is kept.
        limit: its size in GiB, beyond which what was used least recently goes.
    """

    path: str | None = None
    limit: float = field(default=50.0, metadata={"above": 0})


@dataclass(kw_only=True)
class RecipeFields:
    """The typed head of a recipe.

    Attributes:
        name: of the recipe; default: its file's.
        seed: of everything that is random.
        imports: modules with the user's parts: module names, or `.py` files relative to the recipe.
        chat: name of the chat template.
        max_length: longest sequence, in tokens.
        model, tokens, stages, evaluate, ablate, cache: see their classes.
        options: group -> its named changes of the recipe, see `options.py`.
        experts: task -> node of the expert that answers it.
        trainer: see `TRAINER_KEYS`; the rest is handed to `lightning.Trainer`.
        out: folder of the run; default: `runs/<name>`.
    """

    name: str = ""
    seed: int = 0
    imports: list[str] = _list()
    chat: str = "vicuna"
    max_length: int = field(default=2048, metadata={"above": 0})
    model: ModelNodes = field(default_factory=ModelNodes)
    tokens: Tokens = field(default_factory=Tokens)
    options: dict[str, dict[str, Any]] = _dict()
    experts: dict[str, Any] = _dict()
    stages: list[Stage] = _list()
    trainer: dict[str, Any] = _dict()
    evaluate: Evaluation = field(default_factory=Evaluation)
    ablate: Ablation = field(default_factory=Ablation)
    cache: Cache = field(default_factory=Cache)
    out: str | None = None


def typed(cls: type, data: Any, path: str = "") -> tuple[dict[str, Any], list[Fault]]:
    """Check plain data against a schema class.

    Returns:
        The data without what is wrong with it (defaults take its place), and all faults.
    """
    if not isinstance(data, Mapping):
        return {}, [Fault(path, f"wants keys {', '.join(_names(cls))}; got {data!r}")]
    known, hints = {f.name: f for f in fields(cls)}, get_type_hints(cls)
    clean: dict[str, Any] = {}
    faults = [_unknown_key(_join(path, key), str(key), list(known)) for key in data if key not in known]
    for name, entry in known.items():
        at, value = _join(path, name), data.get(name)
        if value is not None:
            kept, found = _typed_value(hints[name], value, at, entry.metadata)
            faults += found
            if kept is not None:
                clean[name] = kept
        elif entry.default == REQUIRED:
            faults.append(Fault(at, f"required and not given; wants {type_name(hints[name])}"))
        if entry.default == REQUIRED:  # a recipe with faults still becomes a Recipe, so that all of them are found
            clean.setdefault(name, hints[name](1 if hints[name] is int else ""))
    return clean, faults


def _typed_value(hint: Any, value: Any, path: str, rules: Mapping[str, Any]) -> tuple[Any, list[Fault]]:
    """The value as far as it is right (None = not at all), and its faults."""
    item = rules.get("items") or next(filter(_is_schema, get_args(hint)), None)
    if _is_schema(hint):
        return typed(hint, value, path)
    if not fits(value, hint):
        return None, [Fault(path, f"wants {type_name(hint)}, got {value!r}")]
    if item is not None:
        pairs = [typed(item, each, _join(path, index)) for index, each in enumerate(value)]
        return [clean for clean, _ in pairs], [fault for _, faults in pairs for fault in faults]
    broken = _broken_rule(value, rules)
    return (None, [Fault(path, broken)]) if broken else (value, [])


def _is_schema(hint: Any) -> bool:
    return is_dataclass(hint)


def _broken_rule(value: Any, rules: Mapping[str, Any]) -> str:
    if "choices" in rules and value not in rules["choices"]:
        known = rules["choices"]
        return f"no choice {value!r}{did_you_mean(value, known)} Known: {', '.join(known)}"
    if "above" in rules and not value > rules["above"]:
        return f"must be above {rules['above']}, got {value!r}"
    if "below" in rules and not value < rules["below"]:
        return f"must be below {rules['below']}, got {value!r}"
    if "least" in rules and not value >= rules["least"]:
        return f"must be at least {rules['least']}, got {value!r}"
    return ""


def _unknown_key(path: str, key: str, known: list[str]) -> Fault:
    return Fault(path, f"no key {key!r}{did_you_mean(key, known)} Known: {', '.join(known)}")


def _names(cls: type) -> list[str]:
    return [entry.name for entry in fields(cls)]


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
