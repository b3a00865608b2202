import pytest
import torch

from mmunify.checkpoint.shards import CheckpointReader, save_shards
from mmunify.errors import CheckpointError

TREE = {
    "state_dict": {"a": torch.arange(15.0).view(5, 3), "b": torch.tensor([1, 2, 3]), "one": torch.ones(1, 2)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]}],
    "loops": {"step": 7, "name": "fit", "nothing": None},
}
SPLIT = {"a", "one"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Written by three ranks; "a" has two rows on the first two and one on the last, "one" only one in all."""
    split_names = {id(TREE["state_dict"][name]) for name in SPLIT}
    monkeypatch.setattr("mmunify.checkpoint.shards.is_split", lambda tensor: id(tensor) in split_names)
    for rank in (2, 0, 1):

        def rows(tensor, rank=rank):
            per_rank = -(-len(tensor) // 3) if id(tensor) in split_names else 0
            return tensor[rank * per_rank : (rank + 1) * per_rank] if per_rank else tensor

        monkeypatch.setattr("mmunify.checkpoint.shards.local_rows", rows)
        save_shards(tmp_path / "x.ckpt", TREE, rank, 3)
    monkeypatch.undo()
    return tmp_path / "x.ckpt"


@pytest.mark.parametrize("as_file", [False, True])
def test_what_was_written_is_read(folder, as_file):
    if as_file:
        torch.save(TREE, folder.parent / "whole.ckpt")
    reader = CheckpointReader(folder.parent / "whole.ckpt" if as_file else folder)
    tree, optimiser = reader.tree(), "optimizer_states"
    torch.testing.assert_close(tree["state_dict"], TREE["state_dict"], rtol=0, atol=0)
    assert tree[optimiser] == TREE[optimiser] and tree["loops"] == TREE["loops"]
    assert reader.plain["loops"] == TREE["loops"]
    assert reader.shape("state_dict/a") == (5, 3)
    for start, stop in ((0, 5), (1, 4), (4, 5), (5, 5), (2, 3)):
        assert torch.equal(reader.rows("state_dict/a", start, stop), TREE["state_dict"]["a"][start:stop])
    assert torch.equal(reader.rows("state_dict/b", 1, 3), torch.tensor([2, 3]))


@pytest.mark.parametrize("name", ["rank-1.safetensors", "shards.json", "state.pt"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"x.ckpt has no {name} \(it holds .*delete x.ckpt to start its stage"):
        CheckpointReader(folder)


def test_truncated_files_are_named(folder):
    part = folder / "rank-1.safetensors"
    part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"rank-1.safetensors is truncated"):
        CheckpointReader(folder).tree()
    (folder / "state.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"state.pt is truncated"):
        CheckpointReader(folder)


def test_nothing_in_it_runs_code(folder):
    torch.save({"state_dict": print}, folder / "state.pt")
    with pytest.raises(Exception, match="weights_only|Weights only|unsupported"):
        CheckpointReader(folder)
