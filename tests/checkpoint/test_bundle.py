import json
import pickle
import shutil

import pytest
import torch

from mmunify.checkpoint import Bundle, load_bundle
from mmunify.errors import CheckpointError, RecipeError
from mmunify.layers.weights import read_weights
from tests.train.small import SmallTalk, small_recipe


@pytest.fixture
def llama(llama_folder, tmp_path):
    """A backbone that a test may damage."""
    return shutil.copytree(llama_folder, tmp_path / "llama")


@pytest.fixture
def bundle(llama):
    """A bundle whose adapter learned."""
    recipe = small_recipe(llama)
    model = recipe.build()
    learned = frozenset(name for name in model.state_dict() if name.startswith("adapters."))
    with torch.no_grad():
        for name in learned:
            model.state_dict()[name].add_(0.5)
    return Bundle(recipe, model.eval(), learned)


def answer(bundle) -> torch.Tensor:
    talks = SmallTalk()
    report = bundle.model(bundle.processor()([talks[i] for i in (1, 2, 3)]))
    return report.total.detach()


def test_saved_and_loaded_gives_the_same_outputs(bundle, tmp_path):
    loaded = load_bundle(bundle.save(tmp_path / "bundle"))
    assert torch.equal(answer(bundle), answer(Bundle(loaded.recipe, loaded.model.eval())))
    assert loaded.learned == bundle.learned and loaded.recipe.to_dict() == bundle.recipe.to_dict()


def test_a_bundle_holds_what_learned_and_what_no_path_provides(bundle, tmp_path):
    stored = set(read_weights(bundle.save(tmp_path / "bundle") / "model.safetensors"))
    names = set(bundle.model.state_dict())
    provided = {name for name in names if name.startswith("backbone.lm.") and ".low_rank." not in name}
    assert stored == names - provided and any(name.startswith("backbone.new_rows.") for name in stored)


def test_an_external_tensor_that_learned_is_stored(bundle, tmp_path):
    name = "backbone.lm.model.norm.weight"
    bundle.model.state_dict()[name].mul_(3)
    changed = Bundle(bundle.recipe, bundle.model, bundle.learned | {name})
    loaded = load_bundle(changed.save(tmp_path / "bundle"))
    assert torch.equal(loaded.model.state_dict()[name], bundle.model.state_dict()[name])


def test_a_bundle_moves(bundle, tmp_path):
    bundle.save(tmp_path / "bundle")
    moved = shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    assert torch.equal(answer(load_bundle(moved)), answer(bundle))


def test_a_full_bundle_needs_nothing_else(bundle, llama, tmp_path):
    expected = answer(bundle)
    bundle.save(tmp_path / "bundle", full=True)
    shutil.rmtree(llama)
    moved = shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    assert torch.equal(answer(load_bundle(moved)), expected)


@pytest.mark.parametrize("at", ["first rename", "second rename"])
def test_a_process_killed_while_saving_leaves_the_previous_bundle(bundle, tmp_path, monkeypatch, at):
    folder = bundle.save(tmp_path / "bundle")
    expected = answer(bundle)
    renames = []

    def rename(source, target):
        renames.append(source)
        if at == "first rename" or len(renames) == 2:
            raise KeyError("killed")
        source.rename(target)

    monkeypatch.setattr("mmunify.checkpoint.swap.os.replace", rename)
    with torch.no_grad():
        bundle.model.state_dict()["adapters.image.layers.0.weight"].zero_()
    with pytest.raises(KeyError, match="killed"):
        bundle.save(folder)
    monkeypatch.undo()
    assert torch.equal(answer(load_bundle(folder)), expected)
    bundle.save(folder)
    assert torch.equal(answer(load_bundle(folder)), answer(bundle))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "llama"]


def refused(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_bundle(folder)
    return str(caught.value)


def test_missing_folder_and_files(bundle, tmp_path):
    assert "no bundle at" in refused(tmp_path / "nowhere")
    folder = bundle.save(tmp_path / "bundle")
    (folder / "recipe.yaml").unlink()
    assert "recipe.yaml is missing (it holds bundle.json, model.safetensors, tokenizer)" in refused(folder)
    (folder / "bundle.json").write_text('{"format": 1, "tens')
    assert "bundle.json is damaged" in refused(folder)
    (folder / "bundle.json").unlink()
    assert "bundle.json is missing" in refused(folder)


def test_truncated_missing_and_pickled_weights(bundle, tmp_path):
    file = bundle.save(tmp_path / "bundle") / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert "model.safetensors is truncated" in refused(file.parent)
    file.write_bytes(pickle.dumps({"weight": [1.0]}))
    assert "no safetensors file" in refused(file.parent)
    file.unlink()
    assert "model.safetensors does not exist" in refused(file.parent)


def test_missing_and_reshaped_tensors_are_named_together(bundle, tmp_path):
    from safetensors.torch import save_file

    folder = bundle.save(tmp_path / "bundle")
    stored = read_weights(folder / "model.safetensors")
    names = sorted(stored)
    shape = list(stored[names[1]].shape)
    del stored[names[0]]
    stored[names[1]] = torch.zeros(7)
    save_file(stored, folder / "model.safetensors")
    message = refused(folder)
    assert "(2 differences)" in message and f"{names[0]}: not in model.safetensors" in message
    assert f"{names[1]}: [7] in the bundle, {shape} in the recipe's model" in message


def test_a_recipe_that_no_longer_fits(bundle, tmp_path):
    folder = bundle.save(tmp_path / "bundle")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("name: mlp", "name: linear"))
    message = refused(folder)
    assert "the bundle has it, the recipe's model doesn't" in message and "adapters.image." in message


def test_an_external_part_whose_file_changed(bundle, llama, tmp_path):
    from safetensors.torch import save_file

    folder = bundle.save(tmp_path / "bundle")
    weights = read_weights(llama / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    message = refused(folder)
    assert "backbone" in message and str(llama) in message and "model.safetensors is not what it was" in message


def test_a_tokenizer_that_changed(bundle, tmp_path):
    folder = bundle.save(tmp_path / "bundle")
    index = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**index, "vocabulary": "another"}))
    assert "another vocabulary" in refused(folder)


def test_imports_of_a_bundle_run_only_if_allowed(bundle, tmp_path):
    folder = bundle.save(tmp_path / "bundle")
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("imports: []", f"imports: [{tmp_path / 'mine.py'}]"))
    with pytest.raises(RecipeError, match=r"imports: would run the code of .*mine.py"):
        load_bundle(folder)
    with pytest.raises(SystemExit, match="it ran"):
        load_bundle(folder, allow_imports=True)


def test_another_format(bundle, tmp_path):
    folder = bundle.save(tmp_path / "bundle")
    (folder / "bundle.json").write_text(json.dumps({"format": 99}))
    assert "has format 99" in refused(folder)


def test_an_unfinished_run_has_no_bundle(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"stages": {}}))
    assert "has finished no stage yet" in refused(tmp_path)


def test_tied_weights_are_stored_once(bundle, tmp_path):
    model = bundle.model
    model.adapters["other"] = model.adapters["image"]
    folder = Bundle(bundle.recipe, model, bundle.learned).save(tmp_path / "bundle")
    stored = read_weights(folder / "model.safetensors")
    assert not any(name.startswith("adapters.other.") for name in stored)
