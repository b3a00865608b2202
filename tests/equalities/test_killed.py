"""A run that is killed, at any moment, and resumed is the uninterrupted one: weights, optimiser, curve, samples."""

import pytest
import torch

from tests.equalities.runs import diary, run, start, weights

SETTINGS = {"dropout": 0.2, "steps": 6, "lr": 1e-3, "ema": 0.9}
ROWS = {"alone": {}, "packed": {"packing": True}, "divided": {"packing": True, "batch_tokens": 96}}
"""One sample per row, several, and several in more than one batch per step."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rows", ROWS)
def test_killed_in_both_stages(llama_folder, tmp_path, rows, workers):
    settings = {**SETTINGS, **ROWS[rows]}
    run(str(llama_folder), str(tmp_path / "whole"), **settings)
    out = str(tmp_path / "killed")
    for kill in ([0, "perceive", 4], [0, "perceive", 5], [0, "mix", 0], [0, "mix", 3]):
        done = start(tmp_path, llama_folder, {"out": out, "kill": kill, "resume": True, "workers": workers, **settings})
        assert done.returncode == -9, done.stderr[-2000:]
    done = start(tmp_path, llama_folder, {"out": out, "resume": True, "workers": workers, **settings})
    assert done.returncode == 0, done.stderr[-2000:]
    assert diary(tmp_path / "killed") == diary(tmp_path / "whole")
    before, after = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    for stage in ("perceive", "mix"):
        states = [torch.load(tmp_path / name / f"{stage}.optimiser", weights_only=True) for name in ("whole", "killed")]
        torch.testing.assert_close(*states, rtol=0, atol=0)
