"""ZeRO on two processes is one process. What needs DeepSpeed is skipped without it."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from mmunify.checkpoint import load_bundle
from mmunify.checkpoint.shards import CheckpointReader
from mmunify.errors import UserError
from mmunify.train.gathering import gather
from mmunify.train.zero import _check_types, clip_gradients, forget_gradients, gradient
from tests.equalities.runs import LORA, MOE, diary, run, start, weights

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")

# ------------------------------------------------------------------------------------------------- without DeepSpeed


@pytest.mark.parametrize("largest", [0.0, 0.5, 100.0])
def test_clipping_without_zero_is_that_of_torch(largest):
    torch.manual_seed(0)
    layer, like = nn.Linear(3, 3), nn.Linear(3, 3)
    like.load_state_dict(layer.state_dict())
    for each in (layer, like):
        each(torch.ones(3)).square().sum().backward()
    optimizer = torch.optim.SGD([*layer.parameters(), nn.Parameter(torch.ones(1))])
    norm = clip_gradients(object(), optimizer, largest)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(like.parameters(), largest or float("inf"))))
    assert all(torch.equal(gradient(p), q.grad) for p, q in zip(layer.parameters(), like.parameters(), strict=True))
    forget_gradients(object(), optimizer)
    assert all(gradient(parameter) is None for parameter in layer.parameters())


def test_all_that_learns_is_of_one_type():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1, dtype=torch.bfloat16)})
    with pytest.raises(UserError, match=r"several types learn: a.weight \(float32\), b.weight \(bfloat16\); give"):
        _check_types(model)
    model["b"].requires_grad_(False)
    _check_types(model)


# ---------------------------------------------------------------------------------------------------- with DeepSpeed

ZERO2 = {"trainer": {"strategy": "deepspeed_stage_2"}, "processes": 2}
ZERO1 = {"trainer": {"strategy": "deepspeed_stage_1"}, "processes": 2}
SGD = {"steps": 5, "sgd": True, "tuner": MOE, "clip": 1.0}
LORA_SGD = {"steps": 5, "sgd": True, "tuner": LORA}
WIDE = {**SGD, "recipe": "wide"}
ADAM = {"steps": 5, "lr": 1e-3, "tuner": MOE, "eps": 1e-4}
MEAN = {**ADAM, "ema": 0.9, "clip": 0.05}
DROP = {**ADAM, "poison": [0, "mix", 2]}
ONE = {"moe": SGD, "lora": LORA_SGD, "wide": WIDE, "adam": ADAM, "mean": MEAN, "drop": DROP}
"""Runs on one process with the whole batch."""
SPLIT = {
    "zero2_moe": {**ZERO2, **SGD},
    "zero1_moe": {**ZERO1, **SGD},
    "zero2_lora": {**ZERO2, **LORA_SGD, "accumulate": 2},
    "zero1_lora": {**ZERO1, **LORA_SGD, "accumulate": 2},
    "zero2_wide": {**ZERO2, **WIDE},
    "wide2_wide": {**ZERO2, **WIDE, "accumulate": 2},
    "again_lora": {**ZERO2, **LORA_SGD, "trainer": {"strategy": "deepspeed_stage_2", "recompute": True}},
    "zero2_adam": {**ZERO2, **ADAM},
    "zero2_mean": {**ZERO2, **MEAN},
    "zero2_drop": {**ZERO2, **DROP},
    "mixed_mean": {**ZERO2, **MEAN, "trainer": {"strategy": "deepspeed_stage_2", "precision": "bf16-mixed"}},
}
"""The same on two processes with half of it each."""


@pytest.fixture(scope="module")
def folder(llama_folder, tmp_path_factory):
    """All of the runs above."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in ONE.items():
        run(str(llama_folder), str(folder / name), **options)
    specs = [{"out": str(folder / name), **each} for name, each in SPLIT.items()]
    done = start(folder, llama_folder, *specs, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def difference(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def losses(folder) -> list[float]:
    return [float.fromhex(step["loss"]) for step in diary(folder).values()]


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("split", [name for name in SPLIT if not name.startswith("mixed")])
def test_two_processes_equal_one(folder, split):
    """After five steps of each stage: clipped, with a running mean, where a rank lacks a side, and with a step whose
    gradient on one process is no number."""
    whole = folder / split.partition("_")[2]
    assert difference(weights(folder / split), weights(whole)) <= 1e-6
    kept = [pair for pair in zip(losses(folder / split), losses(whole), strict=True) if pair[1] == pair[1]]
    assert len(kept) == (9 if split.endswith("drop") else 10)
    assert [ours for ours, _ in kept] == pytest.approx([theirs for _, theirs in kept], rel=5e-7)


@needs_deepspeed
@pytest.mark.slow
def test_mixed_precision_learns_the_same(folder):
    assert 1e-6 < difference(weights(folder / "mixed_mean"), weights(folder / "zero2_mean")) < 3e-2
    assert all(tensor.dtype == torch.float32 for tensor in weights(folder / "mixed_mean").values())


@needs_deepspeed
@pytest.mark.slow
def test_norms_clipping_and_dropped_steps_are_reported(folder):
    """The norm is the one before clipping; a step without a finite gradient is counted; the proof is complete."""
    for split in ("zero2_moe", "zero2_mean", "zero2_drop"):
        ours, theirs = (json.loads((folder / name / "report.json").read_text()) for name in (split, split[6:]))
        for stage in ("perceive", "mix"):
            found, expected = ours["stages"][stage], theirs["stages"][stage]
            norm = expected["last_metrics"]["grad_norm"]
            assert found["last_metrics"]["grad_norm"] == pytest.approx(norm, rel=1e-4)
            assert found["dropped"] == expected["dropped"] == (split.endswith("drop") and stage == "mix")
            assert found["proof"] == expected["proof"] and not found["proof"]["idle"]
            assert split != "zero2_mean" or norm > MEAN["clip"]


def die_halfway(tmp_path, llama_folder, out):
    """Kill rank 1 of a run; what its checkpoint gathers into a bundle are the means."""
    done = start(tmp_path, llama_folder, {**out, "kill": [1, "mix", 4]}, timeout=300)
    assert done.returncode not in (0, None)
    assert "rank 1 died: it was killed by SIGKILL" in done.stderr
    bundle = load_bundle(gather(tmp_path / "run"))
    means = CheckpointReader(tmp_path / "run" / "mix.ckpt").tree()["state_dict"]
    learned = {name: t for name, t in bundle.model.state_dict().items() if ".low_rank." in name}
    assert learned
    for name, tensor in learned.items():
        assert torch.equal(tensor, means["average.means." + name.replace(".", "/")]), name


@needs_deepspeed
@pytest.mark.slow
def test_a_dead_rank_ends_the_run_which_goes_on_from_its_checkpoint(folder, llama_folder, tmp_path):
    """On two processes exactly; on one, where all strategies read the same file; halfway, as a bundle."""
    out = {"out": str(tmp_path / "run"), **ZERO2, **MEAN}
    die_halfway(tmp_path, llama_folder, out)
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    done = start(tmp_path, llama_folder, {**out, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "zero2_mean")) == 0
    run(str(llama_folder), str(tmp_path / "one"), resume=True, **MEAN)
    assert difference(weights(tmp_path / "one"), weights(folder / "zero2_mean")) <= 1e-6


@needs_deepspeed
@pytest.mark.slow
def test_a_run_of_one_process_goes_on_on_two(folder, llama_folder, tmp_path):
    done = start(tmp_path, llama_folder, {"out": str(tmp_path / "run"), **MEAN, "kill": [0, "mix", 4]}, timeout=300)
    assert done.returncode not in (0, None)
    done = start(tmp_path, llama_folder, {"out": str(tmp_path / "run"), **ZERO2, **MEAN, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "mean")) <= 1e-6
