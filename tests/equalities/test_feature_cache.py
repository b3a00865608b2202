"""A run with the feature cache is the run without it: while it fills the cache, and when everything is in it."""

import pytest
import torch

from mmunify.encoders.clip import CLIPEncoder
from mmunify.train.stages import train
from tests.train.small import small_recipe


@pytest.fixture
def calls(monkeypatch):
    """Pictures that the tower has seen."""
    seen, forward = [], CLIPEncoder.forward

    def counted(self, values, context):
        seen.append(len(values))
        return forward(self, values, context)

    monkeypatch.setattr(CLIPEncoder, "forward", counted)
    return seen


@pytest.mark.parametrize("num_workers", [0, 2])
def test_cached_is_live(tmp_path, llama_folder, calls, num_workers):
    def run(name, **changes):
        del calls[:]
        recipe = small_recipe(llama_folder, **changes)
        for stage in recipe.stages:
            stage.num_workers = num_workers
        return train(recipe, out=tmp_path / name, progress=False).model, sum(calls)

    live, seen = run("live")
    filling, also_seen = run("filling", cache={"path": str(tmp_path / "cache")})
    cached, none_seen = run("cached", cache={"path": str(tmp_path / "cache")})
    assert seen > 0 and 0 < also_seen <= seen and none_seen == 0
    wanted = dict(live.named_parameters())
    for model in (filling, cached):
        for name, tensor in model.named_parameters():
            torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=0)
