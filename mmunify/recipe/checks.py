"""What can be wrong with a recipe beyond its typed head: nodes, their wiring, stages, data, tokens and paths.

Nothing here loads a weight or asks the network; parts are imported, never built.
"""

import ast
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmunify.data.chat import CHATS
from mmunify.errors import UserError
from mmunify.faults import Fault, did_you_mean, unknown
from mmunify.paths import is_path, resolve_path
from mmunify.recipe.fields import TRAINER_KEYS, Ablation, Cache, ModelNodes, RecipeFields, Stage
from mmunify.recipe.merging import DATA_KEYS, GROUPS
from mmunify.recipe.wiring import wiring_faults
from mmunify.registry import BACKBONES, DATASETS, EXPERTS, METRICS, TUNERS
from mmunify.tokens import TokenRegistry

RUNTIME: Mapping[str, tuple[str, ...]] = {
    "encoders": (),
    "adapters": ("in_dim", "out_dim"),
    "heads": ("in_dim",),
    "detokenizers": ("in_dim",),
}
"""Arguments that the composer supplies, by group of nodes."""

FILE_NAME = re.compile(r"(?!\.)[^/\\]+")
NO_FILE_NAME = "must fit into a file's name: no slash, no point in front"


def model_faults(model: ModelNodes, path: str = "model") -> list[Fault]:
    """Faults of the model's nodes and of what they say of each other."""
    if not any((model.encoders, model.backbone, model.heads, model.detokenizers)):
        return [Fault(path, "has no parts; give it a backbone, or an encoder and a detokenizer")]
    return [
        *(fault for group in GROUPS for fault in _group_faults(group, model, path)),
        *(BACKBONES.check(model.backbone, f"{path}.backbone") if model.backbone is not None else []),
        *(fault for i, node in enumerate(model.tuners) for fault in TUNERS.check(node, f"{path}.tuners.{i}")),
        *wiring_faults(model, path),
        *weight_faults(model.weights, model, f"{path}.weights"),
    ]


def weight_faults(weights: Mapping[str, float], model: ModelNodes, path: str) -> list[Fault]:
    """Loss weights of nodes that compute no loss. A key is a head, a de-tokenizer as in "detokenizers.image", or one of
    both and a loss: `node/loss`."""
    known = [*model.heads, *(name for name in model.detokenizers if name not in model.heads)]
    known += [f"detokenizers.{name}" for name in model.detokenizers]
    strange = [key for key in weights if key.partition("/")[0] not in known]
    return [Fault(f"{path}.{key}", unknown("head or detokenizer", key.partition("/")[0], known)) for key in strange]


def stage_faults(stages: Sequence[Stage]) -> list[Fault]:
    """Faults of the stages' names, globs and data; their typed head is checked elsewhere."""
    faults, names = [], [stage.name for stage in stages]
    for index, stage in enumerate(stages):
        path = f"stages.{index}"
        if stage.name and names.index(stage.name) != index:
            first = f"stages.{names.index(stage.name)}"
            faults.append(Fault(f"{path}.name", f"{stage.name!r} is already the name of {first}; choose another"))
        if not stage.learns:
            faults.append(Fault(f"{path}.learns", 'is empty, so nothing would learn; give globs such as "adapters.*"'))
        if not stage.data:
            faults.append(Fault(f"{path}.data", f"is empty; give at least one data set, one of {DATASETS.names()}"))
        faults += _length_faults(stage, path)
        for place, node in enumerate(stage.data):
            faults += _data_faults(node, f"{path}.data.{place}", stage.mix)
    return faults


def row_faults(stage: Stage, model: ModelNodes, path: str) -> list[Fault]:
    """What needs rows of tokens in a stage whose model has none."""
    wanted = [name for name in ("packing", "batch_tokens", "tokens") if getattr(stage, name)]
    if model.backbone is not None:
        return []
    return [Fault(f"{path}.{name}", "needs a backbone: without one, samples have no tokens") for name in wanted]


def expert_faults(experts: Mapping[str, Any]) -> list[Fault]:
    """Faults of the experts' nodes, and experts that don't answer their task."""
    faults = []
    for task, node in experts.items():
        found = EXPERTS.check(node, f"experts.{task}")
        faults += found or _wrong_task(task, node)
    return faults


def expert_notes(recipe: RecipeFields) -> list[str]:
    """Tasks that no expert answers, and experts that no task calls; a recipe without experts gets those it needs."""
    if not recipe.experts:
        return []
    tasks = recipe.tokens.tasks
    unanswered = ", ".join(task for task in tasks if task not in recipe.experts)
    hints = {task: did_you_mean(task, tasks) for task in recipe.experts if task not in tasks}
    return [
        *([f"tokens.tasks: no expert answers {unanswered}"] if unanswered else []),
        *(f"experts.{task}: tokens.tasks has no {task!r}{hint}" for task, hint in hints.items()),
    ]


def token_faults(recipe: RecipeFields, kinds: Sequence[str]) -> list[Fault]:
    """Task and grounding names that cannot be tags, and an unknown chat template."""
    faults = []
    if recipe.chat not in CHATS:
        faults.append(Fault("chat", unknown("chat template", recipe.chat, list(CHATS))))
    try:
        TokenRegistry(recipe.tokens.tasks, recipe.tokens.grounding, kinds, bins=recipe.tokens.bins)
    except UserError as error:
        faults.append(Fault("tokens", str(error)))
    return faults


def ablation_faults(ablate: Ablation, stages: Sequence[str]) -> list[Fault]:
    """Faults of what an ablation compares; those of its arms are found where the arms are made."""
    named = {"vary": ablate.vary, "before": ablate.before}
    listed = [(title, measure) for title, given in ablate.measures.items() for measure in _as_list(given)]
    return [
        *(Fault(f"ablate.arms.{name}", NO_FILE_NAME) for name in ablate.arms if not FILE_NAME.fullmatch(name)),
        *_seed_faults(ablate.seeds),
        *(Fault(f"ablate.{key}", unknown("stage", s, stages)) for key, s in named.items() if s not in ("", *stages)),
        *(fault for title, measure in listed for fault in _measure_faults(measure, f"ablate.measures.{title}")),
    ]


def path_faults(value: Any, path: str, key: str = "") -> Iterator[Fault]:
    """Paths of this machine that don't exist, anywhere inside a node."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from path_faults(item, f"{path}.{name}", str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from path_faults(item, f"{path}.{index}", key)
    elif is_path(key, value) and not Path(resolve_path(value)).exists():
        yield Fault(path, f"no file or folder {value!r} (looked at {resolve_path(value)})")


def cache_faults(cache: Cache) -> list[Fault]:
    """A folder for features that can't be made or written."""
    if cache.path is None:
        return []
    folder = Path(cache.path).expanduser().absolute()
    found = next(place for place in (folder, *folder.parents) if place.exists())
    if found.is_dir() and os.access(found, os.W_OK):
        return []
    why = "is no folder" if not found.is_dir() else "may not be written"
    return [Fault("cache.path", f"{folder} cannot be written, {found} {why}; choose another folder or leave it out")]


def trainer_faults(trainer: Mapping[str, Any]) -> list[Fault]:
    """Keys that neither `lightning.Trainer` nor mmunify takes."""
    arguments = trainer_arguments()
    known = [*arguments, *TRAINER_KEYS] if arguments else []
    hints = {key: did_you_mean(key, known, quoted=False) for key in trainer if known and key not in known}
    return [Fault(f"trainer.{key}", f"lightning.Trainer takes no {key}{hint}") for key, hint in hints.items()]


def trainer_arguments() -> list[str]:
    """Arguments of `lightning.Trainer`, read from its source: importing Lightning takes seconds."""
    spec = importlib.util.find_spec("lightning")
    folders = spec.submodule_search_locations if spec else None
    file = Path(next(iter(folders or []), "")) / "pytorch/trainer/trainer.py"
    if not file.is_file():
        return []
    trainer = _definition(ast.parse(file.read_text("utf-8")), ast.ClassDef, "Trainer")
    built = _definition(trainer, ast.FunctionDef, "__init__")
    return [argument.arg for argument in [*built.args.args[1:], *built.args.kwonlyargs]] if built else []


def _definition(inside: Any, kind: type, name: str) -> Any:
    """A class or a function that stands in a module or a class; None = there is none."""
    found = [node for node in getattr(inside, "body", ()) if isinstance(node, kind)]
    return next((node for node in found if node.name == name), None)  # type: ignore[attr-defined]


def _seed_faults(seeds: Sequence[int]) -> list[Fault]:
    if seeds and len(set(seeds)) == len(seeds) and min(seeds) >= 0:
        return []
    return [Fault("ablate.seeds", f"wants different whole numbers from 0 on, got {seeds}")]


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) and given else [given]


def _measure_faults(name: Any, path: str) -> list[Fault]:
    protocol, _, metric = name.partition("/") if isinstance(name, str) else ("", "", "")
    if not protocol or not metric:
        return [Fault(path, f'wants "protocol/metric" or a list of them, got {name!r}')]
    known = METRICS.names()
    return [] if protocol in known else [Fault(path, unknown("protocol", protocol, known))]


def _group_faults(group: str, model: ModelNodes, path: str) -> Iterator[Fault]:
    for name, node in getattr(model, group).items():
        listed = group == "adapters" and isinstance(node, list)
        nodes = [(f"{name}.{i}", each) for i, each in enumerate(node)] if listed else [(name, node)]
        for at, each in nodes:
            if not (isinstance(each, Mapping) and "share" in each):
                yield from GROUPS[group].check(each, f"{path}.{group}.{at}", _runtime(group, name, each, model))


def _runtime(group: str, name: str, node: Any, model: ModelNodes) -> tuple[str, ...]:
    """An encoder may read another one. A head learns the features of the encoder that it names, of its own name, or of
    the only one."""
    if group == "encoders":
        return ("in_dim",) if isinstance(node, Mapping) and "from" in node else ()
    named = isinstance(node, Mapping) and ("from" in node or "target" in node)
    has_target = group == "heads" and (named or name in model.encoders or len(model.encoders) == 1)
    return (*RUNTIME[group], "target_dim") if has_target else RUNTIME[group]


def _length_faults(stage: Stage, path: str) -> list[Fault]:
    """A stage is measured in one unit."""
    given = [name for name in ("steps", "epochs", "tokens") if getattr(stage, name)]
    if len(given) == 1:
        return []
    found = " and ".join(f"{name}={getattr(stage, name)}" for name in given) or "none"
    at = f"{path}.{given[-1] if given else 'steps'}"
    return [Fault(at, f"give exactly one of steps, epochs, tokens; got {found}")]


def _data_faults(node: Any, path: str, mix: str) -> list[Fault]:
    if not isinstance(node, Mapping):
        return DATASETS.check(node, path)
    own = {key: value for key, value in node.items() if key not in DATA_KEYS}
    faults = DATASETS.check(own, path)
    weight = node.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
        faults.append(Fault(f"{path}.weight", f"must be a number above 0, got {weight!r}"))
    size = node.get("batch_size", 1)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        faults.append(Fault(f"{path}.batch_size", f"must be a whole number above 0, got {size!r}"))
    elif mix == "sample" and "batch_size" in node:
        faults.append(Fault(f"{path}.batch_size", "needs mix: source or task; mix: sample fills batches from all data"))
    return faults


def _wrong_task(task: str, node: Mapping[str, Any]) -> list[Fault]:
    answers = getattr(EXPERTS.get(node["name"]), "tasks", ())
    if not isinstance(answers, Sequence) or not answers or task in answers:
        return []
    return [Fault(f"experts.{task}.name", f"expert {node['name']!r} answers {', '.join(answers)}, not {task!r}")]
