"""A resumed run is the uninterrupted one, bit for bit, inside a stage and between two."""

import pytest
import torch
from lightning.pytorch import Callback

from mmunify.train.stages import train
from tests.train.small import small_recipe


class Recorder(Callback):
    """What a run did: losses and samples by (stage, step), and the state of the optimiser at the end of each stage."""

    def __init__(self, stop_in: str = "", stop_after: int = 0) -> None:
        self.stop = (stop_in, stop_after)
        self.losses, self.samples, self.optimisers = {}, {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        key = (pl_module.stage.name, batch_idx)
        self.losses[key], self.samples[key] = pl_module.step_metrics["loss"], batch.sample_ids
        if key == (self.stop[0], self.stop[1] - 1):
            raise KeyError("the machine went away")

    def on_train_start(self, trainer, pl_module):
        if self.stop == (pl_module.stage.name, 0):
            raise KeyError("the machine went away")

    def on_train_end(self, trainer, pl_module):
        self.optimisers[pl_module.stage.name] = pl_module.optimizers().state_dict()


@pytest.fixture(scope="module")
def uninterrupted(llama_folder, tmp_path_factory):
    seen = Recorder()
    bundle = train(
        small_recipe(llama_folder), tmp_path_factory.mktemp("whole") / "run", callbacks=[seen], progress=False
    )
    return seen, bundle.model.state_dict()


@pytest.mark.parametrize(
    ("stage", "after", "num_workers"),
    [("perceive", 5, 0), ("mix", 0, 0), ("mix", 3, 2)],
    ids=["first", "between", "workers"],
)
def test_resumed_is_uninterrupted(uninterrupted, llama_folder, tmp_path, stage, after, num_workers):
    whole, weights = uninterrupted
    recipe = small_recipe(llama_folder)
    for each in recipe.stages:
        each.num_workers = num_workers
    before, resumed = Recorder(stage, after), Recorder()
    with pytest.raises(KeyError, match="the machine went away"):
        train(recipe, tmp_path / "run", callbacks=[before], progress=False, save_every=2)
    bundle = train(recipe, tmp_path / "run", resume=True, callbacks=[resumed], progress=False, save_every=2)
    last_saved = after - after % 2
    assert min(step for name, step in resumed.losses if name == stage) == last_saved
    assert {**before.losses, **resumed.losses} == whole.losses
    assert {**before.samples, **resumed.samples} == whole.samples
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    torch.testing.assert_close(resumed.optimisers["mix"], whole.optimisers["mix"], rtol=0, atol=0)


def test_report_of_a_resumed_stage_covers_all_of_it(uninterrupted, llama_folder, tmp_path):
    recipe = small_recipe(llama_folder)
    with pytest.raises(KeyError):
        train(recipe, tmp_path / "run", callbacks=[Recorder("mix", 3)], progress=False, save_every=2)
    curves = {}

    class Curve(Callback):
        def on_train_end(self, trainer, pl_module):
            curves[pl_module.stage.name] = pl_module.curve

    train(recipe, tmp_path / "run", resume=True, callbacks=[Curve()], progress=False)
    assert curves == {"mix": [uninterrupted[0].losses["mix", step] for step in range(6)]}
