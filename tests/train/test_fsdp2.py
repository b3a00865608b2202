"""The pieces that need no second process; the strategy itself is tested in tests/equalities/test_fsdp2.py."""

import pytest
import torch

from mmunify.checkpoint.shards import save_shards
from mmunify.errors import CheckpointError
from mmunify.train.callbacks import CheckpointCallback
from mmunify.train.fsdp2 import AnyCheckpointIO
from tests.train.worlds import ToyModel, fit, toy_module, toy_stage


def test_a_checkpoint_folder_resumes_a_run_in_one_piece(tmp_path):
    stage = toy_stage(steps=4)
    whole = fit(toy_module(ToyModel(), stage), tmp_path)
    fit(toy_module(ToyModel(), stage), tmp_path, [CheckpointCallback(tmp_path / "x.ckpt", every=3)])
    save_shards(tmp_path / "pieces.ckpt", torch.load(tmp_path / "x.ckpt", weights_only=True), 0, 1)
    resumed = fit(toy_module(ToyModel(), stage), tmp_path, checkpoint=tmp_path / "pieces.ckpt")
    assert resumed.curve == whole.curve
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_a_missing_piece_is_named(tmp_path):
    save_shards(tmp_path / "x.ckpt", {"state_dict": {"a": torch.ones(2)}}, 0, 2)
    with pytest.raises(CheckpointError, match="x.ckpt has no rank-1.safetensors"):
        AnyCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")
