"""The bundle: what a run leaves behind, and everything that is needed to use or to go on training it.

    recipe.yaml         the resolved recipe
    model.safetensors   every tensor that a stage ever learned, or that no `path:` provides
    bundle.json         tensors with shapes and types, what was learned, external parts with their checksums
    tokenizer/          as `save_pretrained` writes it
    external/           copies of the external parts, in a full bundle alone

A bundle is written aside and then renamed. It never holds code and never a pickle.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmunify import __version__
from mmunify.checkpoint.external import (
    check_external,
    copy_external,
    external_parts,
    is_external,
    portable_path,
    weight_digests,
    with_absolute_paths,
    with_inside_paths,
)
from mmunify.checkpoint.swap import aside, put_in_place, recover, remove
from mmunify.data.processor import Processor
from mmunify.errors import CheckpointError
from mmunify.layers.weights import read_weights
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe
from mmunify.recipe.files import read_yaml

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with the recipe that made it.

    Attributes:
        recipe: resolved.
        model: with its weights.
        learned: names of the tensors that any stage let learn.
    """

    recipe: Recipe
    model: UnifiedModel
    learned: frozenset[str] = frozenset()

    def processor(self) -> Processor:
        """What makes batches for the model."""
        spec, tokens, recipe = self.model.spec(), self.model.tokens, self.recipe
        return Processor(spec, self._tokenizer, tokens, chat=recipe.chat, max_length=recipe.max_length)

    @property
    def _tokenizer(self) -> Any:
        return self.model.backbone.tokenizer if self.model.backbone is not None else None

    def save(self, folder: str | Path, full: bool = False) -> Path:
        """Write the bundle aside, then put it in place of whatever lies at `folder`.

        Args:
            folder: of the bundle.
            full: copy external parts into it, so that it depends on nothing else.

        Returns:
            The folder.
        """
        target = Path(folder).expanduser().absolute()
        remove(aside(target))
        aside(target).mkdir(parents=True)
        self._write(aside(target), full)
        put_in_place(target)
        return target

    def _write(self, folder: Path, full: bool) -> None:
        from safetensors.torch import save_file

        stored, facts = self._sorted_tensors()
        save_file(stored, folder / "model.safetensors")
        sources = {name: str(part.external) for name, part in external_parts(self.model)}
        tree = with_absolute_paths(self.recipe.to_dict())
        if full:
            tree["model"] = copy_external(tree["model"], sorted(set(sources.values())), folder)
        (folder / "recipe.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)), encoding="utf-8")
        index = {
            "format": FORMAT,
            "mmunify": __version__,
            "tensors": facts,
            "learned": sorted(self.learned),
            "external": {name: {"path": portable_path(p), "files": weight_digests(p)} for name, p in sources.items()},
            "vocabulary": _vocabulary_digest(self._tokenizer),
        }
        (folder / "bundle.json").write_text(json.dumps(index, indent=1))
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(folder / "tokenizer")

    def _sorted_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors that the bundle stores, and what it notes of every one, stored or not."""
        external = dict(external_parts(self.model))
        stored, facts = {}, {}
        for name, tensor, aliases in _tensors(self.model):
            outside = is_external(name, external) and self.learned.isdisjoint([name, *aliases])
            facts[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype), "external": outside}
            if not outside:
                stored[name] = tensor.detach().cpu().contiguous()
        return stored, facts


def load_bundle(folder: str | Path, allow_imports: bool = False) -> Bundle:
    """Read a bundle.

    Args:
        folder: of the bundle, or of a run (its last finished stage is read).
        allow_imports: whether the recipe's `imports:`, which run code, are allowed.

    Raises:
        CheckpointError: a missing folder or file, truncated weights, a pickle, tensors that are missing or of another
            shape, or an external part whose files are not those that the bundle was trained with.
        RecipeError: the recipe has faults, or `imports` that aren't allowed.
    """
    folder = _find(Path(folder).expanduser().absolute())
    index = _read_index(folder)
    stored = read_weights(folder / "model.safetensors")
    tree = with_inside_paths(read_yaml(_existing(folder / "recipe.yaml")), folder)
    recipe = Recipe.from_dict(tree, allow_imports=allow_imports)
    model = recipe.build(training=False)
    check_external(folder, index["external"], model)
    bundle = Bundle(recipe, model.eval(), frozenset(index["learned"]))
    _check_vocabulary(folder, index["vocabulary"], bundle._tokenizer)
    _fill(folder, model, stored, index["tensors"])
    return bundle


# ------------------------------------------------------------------------------------------- tensors


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, list[str]]]:
    """First name, tensor and further names of everything in the state dict; tied tensors once."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    for key, (first, *aliases) in names.items():
        yield first, tensors[key], aliases


def _fill(folder: Path, model: nn.Module, stored: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Copy the stored tensors into the model, after checking that they and the model agree.

    Raises:
        CheckpointError: they don't; all differences are named together.
    """
    wanted = {name: tensor for name, tensor, _ in _tensors(model)}
    inside = {name for name, fact in facts.items() if not fact["external"]}
    wrong = [f"{name}: not in model.safetensors" for name in inside - stored.keys()]
    wrong += [f"{name}: the recipe's model has it, the bundle doesn't" for name in wanted.keys() - facts.keys()]
    wrong += [f"{name}: the bundle has it, the recipe's model doesn't" for name in facts.keys() - wanted.keys()]
    wrong += _reshaped({name: fact["shape"] for name, fact in facts.items()} | _shapes(stored), _shapes(wanted))
    if wrong:
        listed = "\n  ".join(sorted(wrong)[:20])
        raise CheckpointError(f"the weights of {folder} don't fit its recipe ({len(wrong)} differences):\n  {listed}")
    with torch.no_grad():
        for name, tensor in stored.items():
            wanted[name].copy_(tensor)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _reshaped(kept: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> list[str]:
    different = [name for name in kept.keys() & wanted.keys() if kept[name] != wanted[name]]
    return [f"{name}: {kept[name]} in the bundle, {wanted[name]} in the recipe's model" for name in different]


# ------------------------------------------------------------------------------------------- files


def _find(folder: Path) -> Path:
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"no bundle at {folder}: there is no such folder")
    run = folder / "run.json"
    if not (folder / "bundle.json").exists() and run.exists():
        finished = list(json.loads(run.read_text())["stages"])
        if not finished:
            raise CheckpointError(f"the run in {folder} has finished no stage yet; train it on with --resume")
        return _find(folder / finished[-1])
    return folder


def _existing(file: Path) -> Path:
    if not file.is_file():
        held = ", ".join(sorted(p.name for p in file.parent.iterdir())) or "nothing"
        raise CheckpointError(f"{file.parent} is no complete bundle: {file.name} is missing (it holds {held})")
    return file


def _read_index(folder: Path) -> dict[str, Any]:
    file = _existing(folder / "bundle.json")
    try:
        index = json.loads(file.read_text())
        found = index["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); copy the bundle again") from error
    if found != FORMAT:
        raise CheckpointError(f"{file} has format {found!r}, this mmunify {__version__} reads format {FORMAT}")
    return index


def _check_vocabulary(folder: Path, recorded: str | None, tokenizer: Any) -> None:
    if recorded != _vocabulary_digest(tokenizer):
        raise CheckpointError(
            f"the recipe of bundle {folder} loads a tokenizer with another vocabulary than the one beside it in "
            f"{folder / 'tokenizer'}; bring the old one back"
        )


def _vocabulary_digest(tokenizer: Any) -> str | None:
    if tokenizer is None:
        return None
    entries = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
