import pytest
import torch

from mmunify.errors import CheckpointError, UserError
from mmunify.layers.part_folder import read_sizes, write_part
from mmunify.layers.weights import read_weights


def test_round_trip(tmp_path):
    folder = write_part(tmp_path / "a" / "b", "toy", {"in_dim": 3, "dims": [4, 5]}, {"w": torch.ones(2).T}, torch.half)
    assert read_sizes(str(folder), "toy", 3) == {"in_dim": 3, "dims": [4, 5]}
    assert read_weights(folder / "model.safetensors")["w"].dtype == torch.half


def test_errors(tmp_path):
    folder = str(write_part(tmp_path / "toy", "toy", {"in_dim": 3}, {"w": torch.ones(2)}, torch.float32))
    with pytest.raises(UserError, match="holds a toy, not a game"):
        read_sizes(folder, "game", 3)
    with pytest.raises(UserError, match="decodes features of width 3, the encoder's are 8 wide"):
        read_sizes(folder, "toy", 8)
    with pytest.raises(CheckpointError, match=r"config\.json does not exist; path: of a toy is a folder"):
        read_sizes(str(tmp_path), "toy", 3)
