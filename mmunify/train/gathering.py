"""From what processes hold in pieces to one bundle: at the end of a stage, and from an unfinished one's checkpoint."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.checkpoint.shards import CheckpointReader, filled
from mmunify.checkpoint.swap import recover
from mmunify.errors import CheckpointError
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe, Stage
from mmunify.recipe.files import read_yaml
from mmunify.train.average import mean_name
from mmunify.train.folder import STATE_FILE, main_process
from mmunify.train.handover import model_of_stage, recipe_of_stage
from mmunify.train.learns import apply_learns, clean_name, learned_names
from mmunify.train.ranks import num_ranks, whole

RECIPE_FILE = "recipe.yaml"


def build(recipe: Recipe, meta: bool = False) -> UnifiedModel:
    """The model of a recipe.

    Args:
        recipe: without faults.
        meta: whether every process but the first gets one without memory for its weights. Parts that read weights from
            files of their own formats can't do without; then the whole model is real.
    """
    if meta and not main_process():
        try:
            with torch.device("meta"):
                return recipe.build()
        except (NotImplementedError, RuntimeError):  # a fault that has another cause comes again below
            pass
    return recipe.build()


def gathered(bundle: Bundle) -> Bundle:
    """The first process's bundle with whole tensors; every process must ask, the others get their own back."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in bundle.model.state_dict(keep_vars=True).items():
        values = whole(tensor).detach()
        if main_process():
            tensors[clean_name(name)] = values.cpu()
    if not main_process():
        return bundle
    model = bundle.recipe.build()
    _fill(model, tensors)
    return Bundle(bundle.recipe, model.eval(), bundle.learned)


def reloaded(folder: Path, meta: bool = False) -> Bundle:
    """A bundle that the first process has written, in every process."""
    if num_ranks() > 1:
        dist.barrier()
    if meta and not main_process():
        with torch.device("meta"):
            return load_bundle(folder, allow_imports=True)
    return load_bundle(folder, allow_imports=True)


def gather(run: Path, out: Path | None = None) -> Path:
    """Make a bundle of the checkpoint of an unfinished stage.

    Args:
        run: folder of the run.
        out: folder of the bundle; None = `<run>/<stage>-step<n>`.

    Returns:
        The folder of the bundle. It holds the running mean of a stage with `ema:`.

    Raises:
        CheckpointError: no run, no checkpoint, or a checkpoint with a missing or truncated file.
    """
    recipe, finished = _read_run(run)
    stage, path = _unfinished(run, recipe)
    earlier = [each.name for each in recipe.stages[: recipe.stages.index(stage)] if each.name in finished]
    if stage.start:
        before = load_bundle(stage.start, allow_imports=bool(recipe.imports))
    else:
        before = load_bundle(run / earlier[-1], allow_imports=True) if earlier else Bundle(recipe, recipe.build())
    reader = CheckpointReader(path)
    model = model_of_stage(recipe, stage, before)
    apply_learns(model, stage.learns, f"stages.{stage.name}.learns")
    learned = learned_names(model)
    _fill(model, _stored(reader))
    folder = out or run / f"{stage.name}-step{len(reader.plain['mmunify']['curve'])}"
    return Bundle(recipe_of_stage(recipe, stage), model.eval(), before.learned | learned).save(folder)


def _stored(reader: CheckpointReader) -> dict[str, Tensor]:
    """Tensors of the model by clean name; means take the place of what they are the mean of."""
    tensors = filled(reader.plain["state_dict"], reader.tensor)
    own = {clean_name(n.removeprefix("model.")): t for n, t in tensors.items() if n.startswith("model.")}
    return own | {name: tensors[at] for name in own if (at := f"average.means.{mean_name(name)}") in tensors}


@torch.no_grad()
def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict(keep_vars=True).items():
        if clean_name(name) in tensors:
            tensor.copy_(tensors[clean_name(name)])


def _read_run(run: Path) -> tuple[Recipe, list[str]]:
    for file in (run / STATE_FILE, run / RECIPE_FILE):
        if not file.is_file():
            raise CheckpointError(f"{run} is no run: it has no {file.name}")
    recipe = Recipe.from_dict(read_yaml(run / RECIPE_FILE), allow_imports=True)
    return recipe, list(json.loads((run / STATE_FILE).read_text())["stages"])


def _unfinished(run: Path, recipe: Recipe) -> tuple[Stage, Path]:
    """The stage that has a checkpoint."""
    for stage in recipe.stages:
        path = run / f"{stage.name}.ckpt"
        recover(path)
        if path.exists():
            return stage, path
    raise CheckpointError(f"{run} has no checkpoint of an unfinished stage; finished stages are bundles already")
