import pytest
import torch
from lightning.pytorch import Callback

from mmunify.checkpoint import load_bundle
from mmunify.errors import CheckpointError
from mmunify.train.gathering import gather, gathered
from mmunify.train.stages import train
from tests.train.small import small_recipe


class Stop(Callback):
    """Breaks a run off, and remembers how the model was at its last checkpoint."""

    def __init__(self, stage: str) -> None:
        self.stage, self.kept = stage, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.stage.name == self.stage and batch_idx == 2:
            self.kept = {name: tensor.clone() for name, tensor in pl_module.model.state_dict().items()}
        if pl_module.stage.name == self.stage and batch_idx == 3:
            raise KeyError("broken off")


@pytest.mark.parametrize("stage", ["perceive", "mix"])
def test_an_unfinished_stage_becomes_a_bundle(llama_folder, tmp_path, stage):
    recipe, stop = small_recipe(llama_folder), Stop(stage)
    with pytest.raises(KeyError):
        train(recipe, tmp_path / "run", callbacks=[stop], progress=False, save_every=2)
    folder = gather(tmp_path / "run")
    assert folder == tmp_path / "run" / f"{stage}-step2"
    bundle = load_bundle(folder)
    found = bundle.model.state_dict()
    assert found.keys() == stop.kept.keys()
    assert all(torch.equal(found[name], stop.kept[name]) for name in found)
    learned = {"perceive": {"adapters"}, "mix": {"adapters", "backbone"}}[stage]
    assert {name.split(".")[0] for name in bundle.learned} == learned
    assert gather(tmp_path / "run", tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_what_is_no_unfinished_run(llama_folder, tmp_path):
    with pytest.raises(CheckpointError, match="is no run: it has no run.json"):
        gather(tmp_path)
    recipe = small_recipe(llama_folder)
    recipe.stages = recipe.stages[:1]
    recipe.stages[0].steps = 2
    bundle = train(recipe, tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match="no checkpoint of an unfinished stage"):
        gather(tmp_path / "run")
    again = gathered(bundle)
    torch.testing.assert_close(again.model.state_dict(), bundle.model.state_dict(), rtol=0, atol=0)
    assert again.learned == bundle.learned and again.model is not bundle.model
