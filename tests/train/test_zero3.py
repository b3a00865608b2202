"""ZeRO-3 on two and on three processes is one process. What needs DeepSpeed is skipped without it."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmunify.checkpoint import load_bundle
from mmunify.errors import TrainingError
from mmunify.train.zero3 import _check_version, _copy_part, _is_kept
from tests.equalities.runs import run, start, weights
from tests.train.test_zero import (
    ADAM,
    DROP,
    LORA_SGD,
    MEAN,
    SGD,
    WIDE,
    die_halfway,
    difference,
    losses,
    needs_deepspeed,
)

# ------------------------------------------------------------------------------------------------- without DeepSpeed


def test_another_version_of_deepspeed():
    with pytest.raises(TrainingError, match="this version of DeepSpeed has no parameter_offload, reduce_ready"):
        _check_version(SimpleNamespace(averaged_gradients={}))


def test_what_a_checkpoint_holds():
    learns, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    kept = {"model.a": learns, "model.b": frozen, "model.count": torch.ones(1), "average.means.a": frozen}
    assert [name for name, tensor in kept.items() if _is_kept(name, tensor)] == [
        "model.a",
        "model.count",
        "average.means.a",
    ]


def test_a_part_takes_its_numbers(monkeypatch):
    whole, split = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.empty(0))
    split.ds_tensor = torch.zeros(2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    with torch.no_grad():
        for parameter in (whole, split):
            _copy_part(parameter, torch.tensor([1.0, 2.0, 3.0]))
    assert whole.tolist() == [1, 2, 3] and split.ds_tensor.tolist() == [3, 0]


# ---------------------------------------------------------------------------------------------------- with DeepSpeed


def zero(stage: int, **trainer) -> dict:
    return {"trainer": {"strategy": f"deepspeed_stage_{stage}", **trainer}, "processes": 2}


LEARNS = ["adapters.*", "backbone.*", "heads.image.*", "encoders.image.*", "encoders.audio.*"]
EVERY = {**ADAM, "recipe": "wide", "learns": LEARNS, "allow_idle": ["*"], "ema": 0.9, "clip": 0.05}
SIX = {**MEAN, "batch": 6}
SIXTEEN = {**MEAN, "dtype": "bfloat16"}
ONE = {"moe": SGD, "lora": LORA_SGD, "wide": WIDE, "mean": MEAN, "drop": DROP, "every": EVERY, "six": SIX}
"""Runs on one process with the whole batch."""
SPLIT = {
    "zero3_moe": {**zero(3), **SGD},
    "again_lora": {**zero(3, recompute=True), **LORA_SGD, "accumulate": 2},
    "zero3_wide": {**zero(3), **WIDE, "accumulate": 2},
    "zero3_mean": {**zero(3), **MEAN, "parts": True},
    "zero3_drop": {**zero(3), **DROP},
    "zero3_every": {**zero(3), **EVERY, "parts": True},
}
"""The same on two processes with half of it each."""
THREE = {**zero(3), **SIX, "processes": 3}
MIXED = {f"zero{stage}_mixed": {**zero(stage, precision="bf16-mixed"), **SIXTEEN} for stage in (2, 3)}


@pytest.fixture(scope="module")
def folder(llama_folder, tmp_path_factory):
    """All of the runs above."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in ONE.items():
        run(str(llama_folder), str(folder / name), **options)
    for runs in ({**SPLIT, **MIXED}, {"three_six": THREE}):
        specs = [{"out": str(folder / name), **options} for name, options in runs.items()]
        done = start(folder, llama_folder, *specs, timeout=3000)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("split", [*SPLIT, "three_six"])
def test_processes_equal_one(folder, split):
    """After five steps of each stage: clipped, with a running mean, where a rank lacks a side, with a step whose
    gradient on one process is no number, with all that can learn learning, and where parts are of unequal length. The
    bundles that are left, the proof of what learns, and the norms of the gradient are those of one process too."""
    whole = folder / split.partition("_")[2]
    assert difference(weights(folder / split), weights(whole)) <= 1e-6
    kept = [pair for pair in zip(losses(folder / split), losses(whole), strict=True) if pair[1] == pair[1]]
    assert len(kept) == (9 if split.endswith("drop") else 10)
    assert [ours for ours, _ in kept] == pytest.approx([theirs for _, theirs in kept], rel=5e-7)

    ours, theirs = (json.loads((each / "report.json").read_text())["stages"] for each in (folder / split, whole))
    for stage in ("perceive", "mix"):
        norm = theirs[stage]["last_metrics"]["grad_norm"]
        assert ours[stage]["last_metrics"]["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert ours[stage]["dropped"] == theirs[stage]["dropped"] == (split.endswith("drop") and stage == "mix")
        assert ours[stage]["proof"] == theirs[stage]["proof"]
        assert bool(ours[stage]["proof"]["idle"]) == split.endswith("every")
        first, second = (load_bundle(each / stage) for each in (folder / split, whole))
        assert first.learned == second.learned
        assert difference(first.model.state_dict(), second.model.state_dict()) <= 1e-6


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(("name", "whole"), [("mean", ["adapters", "encoders"]), ("every", ["encoders"])])
def test_every_process_holds_its_part_alone(folder, name, whole):
    """Between steps, of the weights, their means, their gradients and the two states of AdamW."""
    for rank in (0, 1):
        held = json.loads((folder / f"zero3_{name}" / f"parts-{rank}.json").read_text())
        assert held["tensors"] > 40 and held["whole"] == whole and held["gathered"] == 0
        assert held["all"] / 2 <= held["parts"] <= held["all"] / 2 + held["tensors"]
        assert held["gradients"] == held["means"] == held["states"] / 2
        assert held["learning"] / 2 <= held["gradients"] <= held["learning"] / 2 + held["tensors"]
        assert (held["learning"] == held["all"]) == (name == "every")


@needs_deepspeed
@pytest.mark.slow
def test_in_sixteen_bits_it_equals_stage_2(folder):
    """With a frozen backbone that is of 16 bits itself."""
    ours = weights(folder / "zero3_mixed")
    assert difference(ours, weights(folder / "zero2_mixed")) <= 1e-6
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32, torch.bfloat16}
    assert 1e-6 < difference(ours, weights(folder / "mean")) < 3e-2


@needs_deepspeed
@pytest.mark.slow
def test_a_dead_rank_ends_the_run_which_goes_on_from_its_checkpoint(folder, llama_folder, tmp_path):
    """On two processes exactly; on one, and on two of stage 2, which read the same file; halfway, as a bundle."""
    out = {"out": str(tmp_path / "run"), **zero(3), **MEAN}
    die_halfway(tmp_path, llama_folder, out)
    for copy in ("one", "two"):
        shutil.copytree(tmp_path / "run", tmp_path / copy)
    again = [{**out, "resume": True}, {**out, **zero(2), "out": str(tmp_path / "two"), "resume": True}]
    done = start(tmp_path, llama_folder, *again)
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "zero3_mean")) == 0
    run(str(llama_folder), str(tmp_path / "one"), resume=True, **MEAN)
    for other in ("one", "two"):
        assert difference(weights(tmp_path / other), weights(folder / "zero3_mean")) <= 1e-6


@needs_deepspeed
@pytest.mark.slow
def test_a_run_of_one_process_goes_on_on_three(folder, llama_folder, tmp_path):
    out = {"out": str(tmp_path / "run")}
    done = start(tmp_path, llama_folder, {**out, **SIX, "kill": [0, "mix", 4]}, timeout=300)
    assert done.returncode not in (0, None)
    done = start(tmp_path, llama_folder, {**out, **THREE, "resume": True})
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(weights(tmp_path / "run"), weights(folder / "six")) <= 1e-6
