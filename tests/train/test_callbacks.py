import logging
import resource
import warnings

import pytest
import torch
from lightning.pytorch import Callback

from mmunify.errors import TrainingError
from mmunify.train.callbacks import CheckpointCallback, ProgressCallback, quiet
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def test_the_newest_checkpoint_is_kept(tmp_path):
    path = tmp_path / "toy.ckpt"
    fit(toy_module(ToyModel(), toy_stage(steps=5)), tmp_path, [CheckpointCallback(path, every=2)])
    assert [p.name for p in tmp_path.iterdir()] == ["toy.ckpt"]
    assert torch.load(path, weights_only=True)["global_step"] == 4


def test_a_process_killed_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "toy.ckpt"
    saves = []

    def replace(source, target):
        saves.append(target)
        if len(saves) == 2:
            raise KeyError("killed")
        source.rename(target)

    monkeypatch.setattr("mmunify.checkpoint.swap.os.replace", replace)
    with pytest.raises(KeyError, match="killed"):
        fit(toy_module(ToyModel(), toy_stage(steps=5)), tmp_path, [CheckpointCallback(path, every=2)])
    assert torch.load(path, weights_only=True)["global_step"] == 2


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    """No file may grow any more, from the second checkpoint on."""
    path, limits = tmp_path / "toy.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillDisk(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(TrainingError, match=r"no checkpoint could be written to .*toy.ckpt .*--resume goes on"):
            fit(toy_module(ToyModel(), toy_stage(steps=5)), tmp_path, [FillDisk(), CheckpointCallback(path, every=2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.ckpt"]
    assert torch.load(path, weights_only=True)["global_step"] == 2


def test_progress_shows_steps_and_loss(tmp_path, capsys):
    module = fit(toy_module(ToyModel(), toy_stage(steps=3)), tmp_path, [ProgressCallback("perceive")])
    shown = capsys.readouterr().out
    assert "perceive" in shown and "3/3" in shown and f"loss {module.curve[-1]:.4f}" in shown


def test_quiet_ends():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet():
        assert logger.level == logging.ERROR
    assert logger.level == before
    with pytest.warns(UserWarning, match="mine"), quiet():
        warnings.warn("mine", stacklevel=1)
