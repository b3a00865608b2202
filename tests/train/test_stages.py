import csv
import json
import shutil

import pytest
import torch
from lightning.pytorch import Callback

import mmunify.train
from mmunify.checkpoint import load_bundle
from mmunify.errors import CheckpointError, RecipeError, UserError
from mmunify.train.stages import train
from tests.train.small import small_recipe


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def run(llama_folder, tmp_path_factory):
    """A finished run and the model before it."""
    folder, recipe = tmp_path_factory.mktemp("runs") / "small", small_recipe(llama_folder)
    return recipe, folder, tensors(recipe.build()), train(recipe, folder, progress=False)


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_stage_changes_what_it_should(run):
    _, folder, start, bundle = run
    middle = tensors(load_bundle(folder / "perceive").model)
    end = tensors(bundle.model)
    assert changed(start, middle) == {name for name in start if name.startswith("adapters.")}
    assert changed(middle, end) == {name for name in start if ".low_rank." in name}


def test_bundle_of_the_run_is_the_returned_one(run):
    _, folder, _, bundle = run
    loaded = load_bundle(folder)
    assert changed(tensors(bundle.model), tensors(loaded.model)) == set()
    assert not loaded.model.training and not bundle.model.training
    assert loaded.learned == bundle.learned == changed(run[2], tensors(bundle.model))


def test_the_folder_tells_what_happened(run):
    _, folder, _, _ = run
    report = json.loads((folder / "report.json").read_text())
    assert list(report["stages"]) == ["perceive", "mix"]
    assert report["stages"]["mix"]["proof"]["num_learning"] == 12
    with (folder / "logs" / "mix" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(6))
    assert float(rows[-1]["loss"]) == pytest.approx(report["stages"]["mix"]["last_metrics"]["loss"], rel=1e-6)
    assert {path.name for path in folder.glob("*.ckpt*")} == set()


def test_finished_stages_are_skipped(run):
    class Never(Callback):
        def on_train_start(self, *args):
            pytest.fail("nothing is left to train")

    recipe, folder, _, bundle = run
    again = train(recipe, folder, resume=True, progress=False, callbacks=[Never()])
    assert changed(tensors(bundle.model), tensors(again.model)) == set()


def test_a_finished_run_is_not_overwritten(run):
    with pytest.raises(UserError, match="already holds a run"):
        train(run[0], run[1], progress=False)


def test_loss_weights_of_a_stage_end_with_it(llama_folder, tmp_path):
    recipe = small_recipe(llama_folder)
    recipe.stages[1].weights = {"text": 0.25}
    recipe.model.weights = {"text": 2.0}
    seen = []

    class Weights(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(dict(pl_module.model.weights))

    for stage in recipe.stages:
        stage.steps = 2
    bundle = train(recipe, tmp_path / "run", progress=False, callbacks=[Weights()])
    assert seen == [{"text": 2.0}, {"text": 0.25}] and bundle.recipe.model.weights == {"text": 2.0}


def test_a_stage_may_change_the_model(llama_folder, tmp_path):
    recipe = small_recipe(llama_folder)
    recipe.stages[1].model = {"adapters": {"image": {"name": "linear"}}}
    for stage in recipe.stages:
        stage.steps = 2
    with pytest.raises(RecipeError, match=r"stages.mix.fresh: adapters.image.*list it under fresh"):
        train(recipe, tmp_path / "refused", progress=False)
    recipe.stages[1].fresh = ["adapters.*"]
    bundle = train(recipe, tmp_path / "run", progress=False)
    assert type(bundle.model.adapters["image"]).__name__ == "LinearAdapter"
    assert bundle.recipe.model.adapters["image"]["name"] == "linear"


def test_nothing_to_train(llama_folder, tmp_path):
    with pytest.raises(UserError, match="'small' has no stages"):
        mmunify.train(small_recipe(llama_folder, stages=[]), tmp_path)


def test_tables_and_bars_are_shown(llama_folder, tmp_path, capsys):
    recipe = small_recipe(llama_folder)
    recipe.stages = recipe.stages[:1]
    train(recipe, tmp_path / "run")
    shown = capsys.readouterr().out
    assert "stage perceive" in shown and "adapters.image" in shown and "6/6" in shown


def test_a_damaged_checkpoint_is_named(llama_folder, tmp_path):
    recipe = small_recipe(llama_folder)
    with pytest.raises(KeyError):
        train(recipe, tmp_path / "run", progress=False, save_every=2, callbacks=[Stop()])
    (tmp_path / "run" / "perceive.ckpt").write_bytes(b"half a fi")
    with pytest.raises(
        CheckpointError, match="perceive.ckpt is truncated; bring the file back, or delete perceive.ckpt"
    ):
        train(recipe, tmp_path / "run", resume=True, progress=False)


def test_one_stage_alone(run, llama_folder, tmp_path):
    recipe, folder, _, whole = run
    with pytest.raises(UserError, match=r"no stage named 'mixx'; did you mean 'mix'"):
        train(recipe, tmp_path / "a", stage="mixx", progress=False)
    with pytest.raises(UserError, match=r"'mix' starts from what 'perceive' leaves.*say stages.mix.start=BUNDLE"):
        train(recipe, tmp_path / "a", stage="mix", progress=False)
    with pytest.raises(UserError, match="stage 'mix' is finished in .*choose another folder"):
        train(recipe, folder, stage="mix", progress=False)
    shutil.copytree(folder / "perceive", tmp_path / "b" / "perceive")
    state = json.loads((folder / "run.json").read_text())
    del state["stages"]["mix"]
    (tmp_path / "b" / "run.json").write_text(json.dumps(state))
    bundle = train(recipe, tmp_path / "b", stage="mix", progress=False)
    assert changed(tensors(whole.model), tensors(bundle.model)) == set()
    recipe = small_recipe(llama_folder)
    recipe.stages[1].start = str(folder / "perceive")
    bundle = train(recipe, tmp_path / "c", stage="mix", progress=False)
    assert changed(tensors(whole.model), tensors(bundle.model)) == set()


def test_a_stage_leaves_its_mean_and_layers_get_their_forward_back(llama_folder, tmp_path):
    recipe = small_recipe(llama_folder, trainer={"accelerator": "cpu", "recompute": True})
    recipe.stages = recipe.stages[1:]
    recipe.stages[0].ema = 0.5
    means, last = {}, {}

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            means.update({k.replace("/", "."): v.clone() for k, v in pl_module.average.means.items()})
            last.update(tensors(pl_module.model))

    bundle = train(recipe, tmp_path / "run", progress=False, callbacks=[Keep()])
    assert changed(last, tensors(bundle.model)) == set(means) == set(bundle.learned)
    assert all(torch.equal(load_bundle(tmp_path / "run").model.state_dict()[name], means[name]) for name in means)
    assert not any("forward" in vars(module) for module in bundle.model.modules())


def test_another_number_of_samples_per_step_is_refused(llama_folder, tmp_path):
    recipe = small_recipe(llama_folder)
    with pytest.raises(KeyError):
        train(recipe, tmp_path / "run", progress=False, save_every=2, callbacks=[Stop()])
    recipe.stages[0].batch_size = 3
    with pytest.raises(CheckpointError, match=r"'perceive' was written with 2 samples per step, this run has 3"):
        train(recipe, tmp_path / "run", resume=True, progress=False)
    recipe.stages[0].batch_size, recipe.stages[0].accumulate = 1, 2
    train(recipe, tmp_path / "run", resume=True, progress=False)


def test_broken_off_behind_the_last_step(run, llama_folder, tmp_path):
    """The last checkpoint is that of the last step, and no bundle was written yet."""

    class AtTheEnd(Callback):
        def on_train_end(self, trainer, pl_module):
            raise KeyError("broken off")

    with pytest.raises(KeyError):
        train(small_recipe(llama_folder), tmp_path / "run", progress=False, save_every=3, callbacks=[AtTheEnd()])
    assert torch.load(tmp_path / "run" / "perceive.ckpt", weights_only=True)["global_step"] == 6
    bundle = train(small_recipe(llama_folder), tmp_path / "run", progress=False, resume=True)
    assert changed(tensors(run[3].model), tensors(bundle.model)) == set()


class Stop(Callback):
    """Breaks a run off at its fourth step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3:
            raise KeyError("broken off")
