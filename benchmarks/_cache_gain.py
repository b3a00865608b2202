"""What the feature cache gains in a recipe whose frozen tower takes most of a step."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _conversations import Workload, read_texts, write_samples, write_tokenizer
from _pair import LEARNS, LINEARS, RATE, SPARE, Setting, Shape, our_loss
from _timing import median_ratio, take_turns
from torch import Tensor

from mmunify.checkpoint import Bundle
from mmunify.data.cache.feature_cache import FeatureCache
from mmunify.data.datasets.jsonl import JSONLines
from mmunify.model import UnifiedModel
from mmunify.recipe import Recipe
from mmunify.train.caching import caching
from mmunify.train.learns import apply_learns
from mmunify.types import Sample

GROUP = 8
Groups = Sequence[Sequence[Sample]]


@dataclass(frozen=True, kw_only=True)
class CacheShape(Shape):
    """A tower that is larger than the language model; windows of its patches become one place each."""

    tower: int = 512
    tower_depth: int = 16
    grid: int = 24
    window: int = 3


@dataclass(frozen=True, kw_only=True)
class CacheGain:
    """What was found: medians in seconds of a step with reading, and the tower's share of the live one."""

    live: float
    cached: float
    gain: float
    tower_share: float
    is_equal: bool


def cache_recipe(shape: CacheShape, tokenizer: Path) -> Recipe:
    """Tower, average over windows, Llama with LoRA."""
    model = {
        "encoders": {"image": {"name": "clip", "config": shape.tower_config(shape.grid, head=64), "layer": -2}},
        "adapters": {"image": {"name": "average_pool", "over": "raster", "kernel": shape.window, "bare": True}},
        "backbone": {"name": "huggingface", "config": shape.text_config(), "tokenizer": str(tokenizer)},
        "heads": {"text": {"name": "text"}},
        "tuners": [{"name": "lora", "match": [f"*.{name}" for name in LINEARS], "rank": shape.rank}],
    }
    return Recipe.from_dict({"name": "cache", "model": model})


def compare_cache(workload: Workload, shape: CacheShape, setting: Setting, batches: int, turns: int) -> CacheGain:
    """A run that reads and looks at its pictures in every step, beside one whose features lie on the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = JSONLines(str(write_samples(folder, setting.fixtures, workload, batches * GROUP)))
        groups = [[data[GROUP * batch + place] for place in range(GROUP)] for batch in range(batches)]
        write_tokenizer(folder, read_texts(setting.fixtures).all, shape.vocabulary - SPARE)
        recipe = cache_recipe(shape, folder)
        torch.manual_seed(0)
        model = recipe.build().to(setting.device)
        apply_learns(model, LEARNS, "learns")
        return _measure(Bundle(recipe, model.train()), FeatureCache(folder / "features"), groups, setting, turns)


def _measure(bundle: Bundle, cache: FeatureCache, groups: Groups, setting: Setting, turns: int) -> CacheGain:
    model, live, stored = bundle.model, bundle.processor(), bundle.processor()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)

    def train(processor: Any) -> None:
        for group in groups:
            our_loss(model, processor(group), setting).backward()
            optimizer.step()
            optimizer.zero_grad()

    with caching(cache, bundle.recipe, model, stored, setting.precision):
        wanted = [_answer(model, stored(group), setting) for group in groups]
    with caching(cache, bundle.recipe, model, stored, setting.precision):
        found = [_answer(model, stored(group), setting) for group in groups]
        seen = [live(group).to(setting.device) for group in groups]
        times = take_turns(
            {
                "live": lambda: train(live),
                "cached": lambda: train(stored),
                "tower": lambda: [our_features(model, batch, setting) for batch in seen],
            },
            turns,
            setting.clock,
        )
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    return CacheGain(
        live=middle["live"] / len(groups),
        cached=middle["cached"] / len(groups),
        gain=median_ratio(times["live"], times["cached"]),
        tower_share=middle["tower"] / middle["live"],
        is_equal=all(map(torch.equal, wanted, found)),
    )


def our_features(model: UnifiedModel, batch: Any, setting: Setting) -> Any:
    """What the tower says of a batch."""
    with setting.autocast():
        return model.encode(batch)


def _answer(model: UnifiedModel, batch: Any, setting: Setting) -> Tensor:
    """Loss and gradients of a batch, in one row of numbers."""
    loss = our_loss(model, batch, setting)
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    answer = torch.cat([loss.detach().reshape(1), *gradients])
    model.zero_grad()
    return answer
