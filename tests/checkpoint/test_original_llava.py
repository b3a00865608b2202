"""The authors' own layout against transformers': the same tensors under other names."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmunify.checkpoint import Bundle, import_model, load_bundle
from mmunify.checkpoint.original_llava import original_names, original_nodes
from mmunify.errors import CheckpointError
from mmunify.testing import randomize, tiny_clip_folder
from tests.checkpoint.published import write_llava
from tests.parity.test_anyres import CANVASES
from tests.parity.test_llava import TEXT
from tests.parity.test_llava_next import write_llava_next

PREFIXES = [
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("image_newline", "model.image_newline"),
]
SETTINGS = {
    **{key: value for key, value in TEXT.items() if key != "model_type"},
    "model_type": "llava_llama",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "pad",
}


def as_original(folder, tower, keep_tower, **settings):
    """Rewrite a folder of transformers in place."""
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        old, new = next(pair for pair in PREFIXES if name.startswith(pair[0]))
        if keep_tower or not name.startswith("vision_tower."):
            tensors[new + name.removeprefix(old)] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vocabulary = len(tensors["model.embed_tokens.weight"])
    written = {**SETTINGS, "vocab_size": vocabulary, "mm_vision_tower": str(tower), **settings}
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def write_tower(folder, theirs):
    """A published tower of the sizes of a model's own, with other weights."""
    tower = tiny_clip_folder(folder)
    other = randomize(type(theirs.model.vision_tower)(theirs.config.vision_config), seed=9)
    other.save_pretrained(tower)
    (tower / "preprocessor_config.json").unlink()
    return tower


def differences(left, right):
    left, right = left.model.state_dict(), right.model.state_dict()
    return {name for name in left if name in right and not torch.equal(left[name], right[name])}


@pytest.mark.parametrize("keep_tower", [True, False])
def test_llava_15(keep_tower, tmp_path):
    """A tower that was trained lies among the tensors; one that was not stays where it was published."""
    folder, theirs = write_llava(tmp_path / "llava")
    wanted = import_model(folder)
    tower = write_tower(tmp_path / "tower", theirs)
    bundle = import_model(as_original(folder, tower, keep_tower))
    changed = differences(bundle, wanted)
    assert bool(changed) is not keep_tower and all(name.startswith("encoders.") for name in changed)
    assert bundle.model.encoders["image"].preprocess.fit == "pad"
    loaded = load_bundle(bundle.save(tmp_path / "bundle"))
    assert not differences(loaded, bundle)


def test_llava_next(tmp_path):
    folder, theirs = write_llava_next(tmp_path)
    wanted = import_model(folder)
    tower = write_tower(tmp_path / "tower", theirs)
    tiles = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": CANVASES, "mm_patch_merge_type": "spatial_unpad"}
    bundle = import_model(as_original(folder, tower, True, **tiles))
    assert not differences(bundle, wanted)
    assert bundle.model.spec() == wanted.model.spec()
    assert isinstance(bundle, Bundle)


@pytest.mark.parametrize(("kind", "depth"), [("linear", 1), ("mlp2x_gelu", 2), ("mlp3x_gelu", 3)])
def test_projectors(kind, depth):
    settings = SETTINGS | {"mm_vision_tower": "x", "mm_projector_type": kind}
    assert original_nodes(settings)["adapters"]["image"]["depth"] == depth
    last = f"model.mm_projector.{2 * (depth - 1)}.bias" if depth > 1 else "model.mm_projector.bias"
    assert original_names(settings).ours(last) == f"adapters.image.layers.{2 * (depth - 1)}.bias"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_projector_type": "identity"}, "mm_projector_type 'identity': linear and mlp<N>x_gelu"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "flat"}, "mm_patch_merge_type 'flat' of an anyres"),
    ],
)
def test_what_ours_cannot_be_is_refused(settings, message):
    with pytest.raises(CheckpointError, match=message):
        original_nodes(SETTINGS | {"mm_vision_tower": "x"} | settings)
