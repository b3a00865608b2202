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

NOISE = 1e-6
"""Gradients from here on are more than what they are rounded by."""
FSDP2 = {"trainer": {"strategy": "fsdp2"}, "processes": 2}
META = {"trainer": {"strategy": {"name": "fsdp2", "meta": True}, "recompute": True}, "processes": 2}
DDP = {"trainer": {"strategy": "ddp"}, "processes": 2}
SGD = {"steps": 5, "sgd": True, "tuner": MOE}
LORA_SGD = {"steps": 5, "sgd": True, "tuner": LORA}
WIDE = {**SGD, "recipe": "wide", "cosine": 2}
ADAM = {"steps": 5, "lr": 1e-3, "tuner": MOE}
MEAN = {**ADAM, "ema": 0.9}
ONE = {"moe": SGD, "lora": LORA_SGD, "wide": WIDE, "adam": ADAM, "mean": MEAN, "calm": {**MEAN, "eps": 1e-4}}
"""Runs on one process with the whole batch."""
SPLIT = {
    "ddp_moe": {**DDP, **SGD},
    "fsdp2_moe": {**FSDP2, **SGD},
    "meta_lora": {**META, **LORA_SGD, "accumulate": 2},
    "ddp_wide": {**DDP, **WIDE, "accumulate": 2},
    "fsdp2_wide": {**FSDP2, **WIDE},
    "meta_wide": {**META, **WIDE, "accumulate": 2},
    "ddp_adam": {**DDP, **ADAM},
    "fsdp2_adam": {**FSDP2, **ADAM},
    "fsdp2_mean": {**FSDP2, **MEAN},
    "fsdp2_calm": {**FSDP2, **ONE["calm"]},
    "mixed": {"trainer": {"strategy": "fsdp2", "precision": "bf16-mixed"}, "processes": 2, **MEAN},
}
"""The same on two processes with half of it each."""


@pytest.fixture(scope="module")
def folder(llama_folder, tmp_path_factory):
    """All of the runs above."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in ONE.items():
        run(str(llama_folder), str(folder / name), **options)
    specs = [{"out": str(folder / name), **options} for name, options in SPLIT.items()]
    done = start(folder, llama_folder, *specs, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def differences(a: dict, b: dict) -> dict:
    assert a.keys() == b.keys()
    return {name: (a[name] - b[name]).abs() for name in a}


def difference(a: dict, b: dict) -> float:
    return max(float(values.max()) for values in differences(a, b).values())


def losses(folder) -> list[float]:
    return [float.fromhex(step["loss"]) for step in diary(folder).values()]


@pytest.mark.slow
@pytest.mark.parametrize("split", [name for name in SPLIT if not name.endswith(("mean", "mixed"))])
def test_two_processes_equal_one(folder, split):
    """After five steps of each stage, with SGD and with AdamW. The tower is frozen and whole; the balance loss is that
    of both processes. Losses are around 6, where float32 has steps of 5e-7."""
    whole = folder / split.partition("_")[2]
    assert difference(weights(folder / split), weights(whole)) <= 1e-6
    assert losses(folder / split) == pytest.approx(losses(whole), rel=5e-7)
    assert losses(folder / split)[-1] == pytest.approx(losses(whole)[-1], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["ddp_wide", "fsdp2_wide", "meta_wide"])
def test_ranks_that_lack_a_side(folder, split):
    """In some step, one of the processes alone has a picture, a sound, something to draw, or any of them."""
    ours, all_of_it = diary(folder / split), diary(folder / "wide")
    assert ours.keys() == all_of_it.keys()
    for side in ("see", "hear", "draw"):
        held = [_who_has(side, step["samples"], all_of_it[name]["samples"]) for name, step in ours.items()]
        assert any(first != second for first, second in held), side
    for name, step in all_of_it.items():
        assert step["cosines"] == pytest.approx(ours[name]["cosines"], abs=1e-5)
    looked = {name.split()[1] for name, step in ours.items() if step["cosines"]}
    assert looked == {"0", "2", "4"}


def _who_has(side: str, first: list[str], whole: list[str]) -> tuple[bool, bool]:
    held = [name in first for name in whole if name.startswith(side)]
    return any(held), not all(held)


@pytest.mark.slow
def test_adam_where_gradients_are_rounding_errors(folder):
    """AdamW divides a gradient by its own size. Where that is about as small as what two orders of adding up differ
    by, the directions of the steps are chance: only such elements may lie further apart, by no more than their steps.
    """
    apart = differences(weights(folder / "fsdp2_mean"), weights(folder / "mean"))
    learned = {}
    for stage in ("perceive", "mix"):
        learned |= torch.load(folder / "mean" / f"{stage}.quietest", weights_only=True)
    assert all(not bool(values.any()) for name, values in apart.items() if name not in learned)
    for name, quietest in learned.items():
        assert float(apart[name][quietest >= NOISE].max()) <= 1e-6, name
        assert float(apart[name].max()) <= 2 * ADAM["steps"] * ADAM["lr"], name
    loud = sum(int((quietest >= NOISE).sum()) for quietest in learned.values())
    assert loud >= 0.99 * sum(quietest.numel() for quietest in learned.values())
    assert losses(folder / "fsdp2_mean") == pytest.approx(losses(folder / "mean"), rel=5e-7)


@pytest.mark.slow
def test_mixed_precision_learns_the_same(folder):
    assert 1e-6 < difference(weights(folder / "mixed"), weights(folder / "fsdp2_mean")) < 3e-2


@pytest.mark.slow
def test_a_dead_rank_ends_the_run_which_goes_on_from_its_pieces(folder, llama_folder, tmp_path):
    out = {"out": str(tmp_path / "run"), **FSDP2, **MEAN}
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
    assert learned
    for name, tensor in learned.items():
        assert torch.equal(tensor, means["average.means." + name.replace(".", "/")]), name

    for copy in ("one", "broken"):
        shutil.copytree(tmp_path / "run", tmp_path / copy)
    done = start(tmp_path, llama_folder, {**out, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "fsdp2_mean")) == 0

    run(str(llama_folder), str(tmp_path / "one"), resume=True, **MEAN)
    assert difference(weights(tmp_path / "one"), weights(folder / "fsdp2_mean")) <= 1e-4

    (tmp_path / "broken" / "mix.ckpt" / "rank-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match="mix.ckpt has no rank-1.safetensors"):
        run(str(llama_folder), str(tmp_path / "broken"), resume=True, **MEAN)


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_rank_keeps_the_last_checkpoint(folder, llama_folder, tmp_path):
    out = {"out": str(tmp_path / "run"), **FSDP2, **MEAN}
    done = start(tmp_path, llama_folder, {**out, "fill": [1, "mix", 3]}, timeout=300)
    assert done.returncode not in (0, None)
    assert "no checkpoint could be written" in done.stderr and "--resume goes on from it" in done.stderr
    assert {path.name for path in (tmp_path / "run").glob("*mix*")} == {"mix.ckpt"}
    assert CheckpointReader(tmp_path / "run" / "mix.ckpt").plain["global_step"] == 2
    done = start(tmp_path, llama_folder, {**out, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "fsdp2_mean")) == 0
