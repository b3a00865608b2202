"""FSDP2 and DDP on two processes are one process; a rank that dies; checkpoints in pieces."""

import shutil
import time

import pytest
import torch

from mmunify.checkpoint import load_bundle
from mmunify.checkpoint.shards import CheckpointReader
from mmunify.errors import CheckpointError
from mmunify.train.gathering import gather
from tests.equalities.runs import LORA, MOE, diary, run, start, weights

FSDP2 = {"trainer": {"strategy": "fsdp2"}, "processes": 2}
META = {"trainer": {"strategy": {"name": "fsdp2", "meta": True}, "recompute": True}, "processes": 2}
ADAM = {"steps": 5, "lr": 1e-3, "ema": 0.9, "tuner": MOE}
SPLIT = {
    "ddp_moe": {"trainer": {"strategy": "ddp"}, "processes": 2, "sgd": True, "tuner": MOE},
    "fsdp2_moe": {**FSDP2, "sgd": True, "tuner": MOE},
    "fsdp2_lora": {**META, "sgd": True, "tuner": LORA, "accumulate": 2},
    "adam": {**FSDP2, **ADAM},
    "mixed": {"trainer": {"strategy": "fsdp2", "precision": "bf16-mixed"}, "processes": 2, **ADAM},
}


@pytest.fixture(scope="module")
def folder(llama_folder, tmp_path_factory):
    """All of the runs above; then, on one process, the same with the whole batch."""
    folder = tmp_path_factory.mktemp("runs")
    done = start(folder, llama_folder, *[{"out": str(folder / name), **options} for name, options in SPLIT.items()])
    assert done.returncode == 0, done.stderr[-3000:]
    for name, options in {"moe": {"sgd": True, "tuner": MOE}, "lora": {"sgd": True}, "adam_1": ADAM}.items():
        run(str(llama_folder), str(folder / name), **options)
    return folder


def difference(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize(("split", "whole"), [("ddp_moe", "moe"), ("fsdp2_moe", "moe"), ("fsdp2_lora", "lora")])
def test_two_processes_equal_one(folder, split, whole):
    """Some batches have no picture; the tower is frozen and whole; the balance loss is that of both processes."""
    assert difference(weights(folder / split), weights(folder / whole)) <= 1e-6


@pytest.mark.slow
def test_adam_takes_the_same_way(folder):
    """Its steps are as long for a gradient of rounding errors as for any other, so weights are compared loosely."""
    assert difference(weights(folder / "adam"), weights(folder / "adam_1")) <= 1e-4
    losses = [[float.fromhex(step["loss"]) for step in diary(folder / name).values()] for name in ("adam", "adam_1")]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)


@pytest.mark.slow
def test_mixed_precision_learns_the_same(folder):
    assert 1e-6 < difference(weights(folder / "mixed"), weights(folder / "adam")) < 3e-2


@pytest.mark.slow
def test_a_dead_rank_ends_the_run_which_goes_on_from_its_pieces(folder, llama_folder, tmp_path):
    out = {"out": str(tmp_path / "run"), **FSDP2, **ADAM}
    begin = time.monotonic()
    done = start(tmp_path, llama_folder, {**out, "kill": [1, "mix", 4]}, timeout=300)
    assert done.returncode not in (0, None)
    assert "rank 1 died: it was killed by SIGKILL" in done.stderr
    file = tmp_path / "run" / "diary.jsonl"
    assert time.time() - file.stat().st_mtime < 60 and time.monotonic() - begin < 300

    pieces = tmp_path / "run" / "mix.ckpt"
    names = {path.name for path in pieces.iterdir()}
    assert names == {"shards.json", "state.pt", "rank-0.safetensors", "rank-1.safetensors"}
    bundle = load_bundle(gather(tmp_path / "run"))
    means = CheckpointReader(pieces).tree()["state_dict"]
    learned = {name: t for name, t in bundle.model.state_dict().items() if ".low_rank." in name}
    for name, tensor in learned.items():
        assert torch.equal(tensor, means["average.means." + name.replace(".", "/")]), name

    for copy in ("one", "broken"):
        shutil.copytree(tmp_path / "run", tmp_path / copy)
    done = start(tmp_path, llama_folder, {**out, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "adam")) == 0

    run(str(llama_folder), str(tmp_path / "one"), resume=True, **ADAM)
    assert difference(weights(tmp_path / "one"), weights(folder / "adam")) <= 1e-4

    (tmp_path / "broken" / "mix.ckpt" / "rank-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match="mix.ckpt has no rank-1.safetensors"):
        run(str(llama_folder), str(tmp_path / "broken"), resume=True, **ADAM)
