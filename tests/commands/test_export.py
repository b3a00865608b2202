"""`mmunify export`: one part in its own format."""

import pytest

from mmunify.checkpoint import Bundle
from mmunify.cli import main
from mmunify.encoders.timm import TimmEncoder
from mmunify.recipe import load_recipe

RECIPE = """
model:
  encoders: {image: {name: timm, model: test_vit, model_args: {img_size: 64}}}
  heads: {patches: {name: patch_labels}}
stages: [{name: tower, learns: ["encoders.*"], steps: 1, data: [{name: digit_patches}]}]
"""


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    model = recipe.build()
    Bundle(recipe, model, frozenset(name for name, _ in model.named_parameters())).save(tmp_path / "bundle")
    return tmp_path / "bundle"


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_a_part_becomes_a_folder_that_path_loads(bundle, tmp_path):
    assert run("export", str(bundle), "encoders.image", str(tmp_path / "tower"), "--dtype", "float16") == 0
    assert TimmEncoder(path=str(tmp_path / "tower")).out_dim == 64
    assert (tmp_path / "tower" / "model.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encoders.imag", "out"), "did you mean 'encoders.image'"),
        (("encoders.image", "out", "--dtype", "float17"), "no tensor type 'float17'"),
        (("heads.patches", "out"), "PatchLabelHead has no folder format"),
    ],
)
def test_mistakes_end_with_code_2(bundle, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("export", str(bundle), *arguments) == 2
    assert message in capsys.readouterr().err
