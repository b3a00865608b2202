"""Published models to bundles and back: LLaVA-1.5, LLaVA-NeXT and BLIP-2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmunify.checkpoint.blip2 import BLIP2
from mmunify.checkpoint.bundle import Bundle
from mmunify.checkpoint.external import INSIDE
from mmunify.checkpoint.family import (
    Family,
    Tree,
    absent_tensors,
    arguments,
    as_shaped,
    fill,
    report_differences,
    require_pixels,
    reshaped_tensors,
)
from mmunify.checkpoint.llava import LLAVA, LLAVA_NEXT
from mmunify.checkpoint.original_llava import (
    BACKBONES,
    is_original,
    original_names,
    original_nodes,
    read_settings,
    read_tensors,
)
from mmunify.checkpoint.rows import adopt_padding, whole_tables
from mmunify.errors import CheckpointError
from mmunify.layers.weights import check_weights
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe
from mmunify.recipe.files import read_yaml

FAMILIES = (LLAVA, LLAVA_NEXT, BLIP2)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_ADDED = ("backbone.new_rows.", "backbone.new_output_rows.")


def import_model(source: str | Path) -> Bundle:
    """Read a published model as a composition of ours, weights included.

    The layouts: LLaVA-1.5, LLaVA-NeXT and BLIP-2 as transformers writes them (old hub files too), LLaVA as its authors
    publish it. A folder without a tokenizer gives a model without one.

    Args:
        source: folder or hub id.

    Returns:
        The bundle; nothing is written. `save_import` writes one that needs its source no more.

    Raises:
        CheckpointError: another kind of model, no safetensors, tensors that are missing, unknown or of another shape.
    """
    folder = _local(source)
    settings = read_settings(folder / "config.json")
    if is_original(settings):
        return _import_original(folder, settings)
    family = next((each for each in FAMILIES if each.model_type == settings.get("model_type")), None)
    if family is None:
        known = ", ".join([*(each.model_type for each in FAMILIES), *BACKBONES])
        raise CheckpointError(f"{source} holds a model of type {settings.get('model_type')!r}; read are {known}")
    theirs = _load_theirs(folder, family)
    pixels = _pixels(folder)
    bundle = _compose(folder, family.nodes(theirs.config, pixels))
    require_pixels(bundle.model, pixels, str(folder))
    adopted = {family.names.ours(name) or name: tensor for name, tensor in theirs.state_dict().items()}
    _fill(bundle.model, adopted, folder)
    return bundle


def save_import(source: str | Path, folder: str | Path) -> Path:
    """Read a published model and write it as a bundle, its tokenizer inside.

    Args:
        source: folder or hub id, see `import_model`.
        folder: of the bundle.

    Returns:
        The bundle's folder.
    """
    bundle = import_model(source)
    target = bundle.save(folder)
    backbone = bundle.recipe.model.backbone or {}
    if backbone.get("tokenizer"):
        from transformers import AutoTokenizer

        # the one in tokenizer/ has the added strings already; the recipe adds them to the published one
        AutoTokenizer.from_pretrained(backbone["tokenizer"]).save_pretrained(target / "external" / "tokenizer")
        tree = read_yaml(target / "recipe.yaml")
        tree["model"]["backbone"]["tokenizer"] = f"{INSIDE}external/tokenizer"
        (target / "recipe.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)), encoding="utf-8")
    return target


def export_model(bundle: Bundle, folder: str | Path) -> Path:
    """Write a model as a folder that transformers' own class loads, with tokenizer and processor.

    Args:
        bundle: of a clip or siglip (or anyres) encoder with an mlp (LLaVA, LLaVA-NeXT), or of BLIP-2's tower with a
            qformer; tuners merged, no head but `text`.
        folder: where to.

    Returns:
        The folder.

    Raises:
        CheckpointError: a composition that none of the layouts can hold; parts that have no place there are named.
    """
    family, model = _family_of(bundle), bundle.model
    theirs = _empty(family, model)
    tensors = _their_tensors(family, model, theirs)
    theirs.load_state_dict(tensors, assign=True, strict=False)
    theirs.tie_weights()
    target = Path(folder)
    theirs.save_pretrained(target)
    tokenizer: Any = model.backbone.tokenizer if model.backbone is not None else None
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
        family.processor(model, tokenizer, image_string(model)).save_pretrained(target)
    return target


def image_string(model: UnifiedModel) -> str:
    """The string of the vocabulary that stands at the places of a picture: theirs where it is free, else our slot."""
    is_bare = getattr(model.adapters["image"], "bare", False)
    vocabulary = model.backbone.tokenizer.get_vocab()  # type: ignore[union-attr]
    return "<image>" if is_bare and "<image>" in vocabulary else model.tokens.slot


# ------------------------------------------------------------------------------------------- theirs -> ours


def _local(source: str | Path) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.absolute()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except Exception as error:  # no such repository, no network, no valid name: one answer for the user
        raise CheckpointError(f"{str(source)!r} is neither a folder nor a hub id in reach: {error}") from error


def _load_theirs(folder: Path, family: Family) -> Any:
    """Their model by their own class, which knows the names of all its versions."""
    import transformers

    check_weights(folder)
    transformers.logging.disable_progress_bar()
    loading: Tree = {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
    try:
        loaded = getattr(transformers, family.model_class).from_pretrained(folder, dtype="auto", **loading)
    except Exception as error:  # OSError, ValueError, ...: all mean that the files can't be used
        raise CheckpointError(f"the {family.model_type} model {folder} cannot be loaded: {error}") from error
    model, report = loaded
    report_differences(str(folder), report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"])
    return model


def _pixels(folder: Path) -> Tree:
    """Settings of their image processor, wherever their version keeps them."""
    nested = read_settings(folder / "processor_config.json").get("image_processor")
    return nested or read_settings(folder / "preprocessor_config.json")


def _compose(folder: Path, nodes: Tree) -> Bundle:
    if any((folder / file).is_file() for file in _TOKENIZER_FILES):
        nodes["backbone"]["tokenizer"] = str(folder)
    recipe = Recipe.from_dict({"model": nodes}, name=folder.name)
    return Bundle(recipe, recipe.build(training=False).eval())


def _fill(model: UnifiedModel, tensors: Mapping[str, Tensor], folder: Path, lacking: tuple[str, ...] = ()) -> None:
    """Copy the tensors in. What our encoders let go (layers above the one that is read) is left out."""
    lost = [name for name in tensors if name.startswith(_ADDED) and name not in model.state_dict()]
    report_differences(f"{folder}, which has no tokenizer to hold their strings,", [], lost, [])
    fill(model, tensors, str(folder), lacking=(*_ADDED, *lacking), idle=("encoders.",))
    adopt_padding(model.backbone, kept=lambda name: f"backbone.{name}" in tensors)  # type: ignore[arg-type]


def _import_original(folder: Path, settings: Tree) -> Bundle:
    """Tensors of the tower may be there or not: it is frozen in LLaVA-1.5, and trained in LLaVA-NeXT."""
    names, given = original_names(settings), read_tensors(folder)
    bundle = _compose(folder, original_nodes(settings))
    tensors = {names.ours(name) or name: tensor for name, tensor in given.items()}
    _fill(bundle.model, tensors, folder, lacking=("encoders.",))
    held = bundle.model.state_dict().keys() & tensors.keys()
    return Bundle(bundle.recipe, bundle.model, frozenset(name for name in held if name.startswith("encoders.")))


# ------------------------------------------------------------------------------------------- ours -> theirs


def _family_of(bundle: Bundle) -> Family:
    nodes = bundle.recipe.model
    names = [node.get("name") if isinstance(node, Mapping) else None for node in _image_nodes(nodes)]
    found = next((each for each in FAMILIES if names[0] in each.parts[0] and names[1] == each.parts[1]), None)
    if found is None or bundle.model.backbone is None:
        known = "; ".join(f"{each.model_type}: {' or '.join(each.parts[0])} with {each.parts[1]}" for each in FAMILIES)
        raise CheckpointError(f"no published layout holds encoder {names[0]!r} with adapter {names[1]!r} ({known})")
    return found


def _image_nodes(nodes: Any) -> tuple[Any, Any]:
    return nodes.encoders.get("image"), nodes.adapters.get("image")


def _empty(family: Family, model: UnifiedModel) -> Any:
    """Their model for ours, without memory for its weights."""
    import transformers

    backbone: Any = model.backbone
    table = backbone.lm.get_input_embeddings().weight
    rows = max(len(table), backbone.vocab_size)
    image = rows - 1 if backbone.tokenizer is None else backbone.tokenizer.get_vocab()[image_string(model)]
    made = getattr(transformers, family.model_class)
    config = made.config_class(
        text_config={**arguments(backbone.lm.config), "vocab_size": rows},
        image_token_index=image,
        **family.config(model),
    )
    config.dtype = table.dtype
    with torch.device("meta"):
        return made(config)


def _their_tensors(family: Family, model: UnifiedModel, theirs: Any) -> dict[str, Tensor]:
    """Tensors by their names, after all differences are known."""
    backbone: Any = model.backbone
    to_theirs = family.names.theirs
    held = {**model.state_dict()}
    tables = whole_tables(backbone, kept=lambda name: to_theirs(f"backbone.{name}") is not None)
    held |= {f"backbone.{name}": table for name, table in tables.items()}
    found = {to_theirs(name) or name: tensor for name, tensor in held.items() if not _is_in_table(name, to_theirs)}
    wanted = theirs.state_dict()
    found |= {name: _idle(name, wanted[name]) for name in wanted.keys() - found.keys() if ".post_layernorm." in name}
    found = {name: as_shaped(tensor, wanted.get(name)) for name, tensor in found.items()}
    source = f"this composition, as {family.model_type},"
    strange = found.keys() - wanted.keys()
    report_differences(source, absent_tensors(theirs, found), strange, reshaped_tensors(found, wanted))
    return {name: tensor.to(theirs.config.dtype).cpu().contiguous() for name, tensor in found.items()}


def _is_in_table(name: str, to_theirs: Any) -> bool:
    return name.startswith(_ADDED) and to_theirs(name) is None


def _idle(name: str, like: Tensor) -> Tensor:
    """The norm above the layer that is read: nothing reads it, and ours was let go."""
    return torch.full(like.shape, float(name.endswith("weight")), dtype=like.dtype, device="cpu")
