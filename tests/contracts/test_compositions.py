"""Every registered encoder answers a sample in a model; every pair of encoder and adapter that fits learns.

New parts come in by themselves: what a medium of an encoder looks like is told from its preprocessing.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from mmunify.composer import compose
from mmunify.data.cache.items import join_items, split_features
from mmunify.data.processor import Processor
from mmunify.errors import MMUnifyError
from mmunify.infer.generate import generate
from mmunify.layers.clips import ClipPreprocess
from mmunify.layers.numbers import NumbersPreprocess
from mmunify.layers.region_frames import RegionPreprocess
from mmunify.layers.sounds import SoundPreprocess
from mmunify.parts import Context, Encoder
from mmunify.registry import ADAPTERS, ENCODERS
from mmunify.tokens import TokenRegistry
from mmunify.types import Features, Media, Region, Sample, Text, Turn
from tests.conftest import TINY_CLIP
from tests.contracts.conftest import load_examples

OUT_DIM = 12
NEEDS_RASTER = ("average_pool", "c_abstractor", "pixel_shuffle", "resampler", "tile_positions")
"""Adapters whose examples work on rasters."""

RNG = np.random.default_rng(0)
SOURCES = {
    ClipPreprocess: lambda _: RNG.integers(0, 255, (3, 20, 30, 3), dtype=np.uint8),
    SoundPreprocess: lambda _: (RNG.normal(0, 0.1, 4000).astype(np.float32), 16_000),
    NumbersPreprocess: lambda preprocess: RNG.normal(size=preprocess.shape),
}


@dataclass(frozen=True)
class World:
    """An encoder in a model, with media that it reads."""

    encoder: Encoder
    node: dict
    kind: str

    @property
    def encoders(self) -> dict:
        """Nodes of a model around it; what it reads comes last, whatever the order of reading."""
        if not isinstance(self.encoder.preprocess, RegionPreprocess):
            return {self.kind: self.node}
        node = {key: value for key, value in self.node.items() if key != "in_dim"}
        return {self.kind: {**node, "from": "image"}, "image": {"name": "clip", "config": TINY_CLIP}}

    def media(self) -> tuple[Media, ...]:
        """One medium, and what it is a part of."""
        preprocess = self.encoder.preprocess
        if isinstance(preprocess, RegionPreprocess):
            return Media(kind="image", source=_picture(None)), Media(
                kind=self.kind, region=Region(box=(0.1, 0, 0.7, 1))
            )
        draw = next((draw for kind, draw in SOURCES.items() if isinstance(preprocess, kind)), _picture)
        return (Media(kind=self.kind, source=draw(preprocess)),)

    def sample(self, name: str, prompt: bool = False) -> Sample:
        """A question about one medium."""
        turns = [Turn(role="user", parts=(*self.media(), Text(text=f"what is {name}?")))]
        answer = [] if prompt else [Turn(role="assistant", parts=(Text(text=f"it is {name}"),))]
        return Sample(turns=(*turns, *answer), id=name)


def _picture(preprocess) -> np.ndarray:
    height, width = RNG.integers(20, 60, 2)
    return RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Name of an encoder -> its world, made once."""
    made = {}
    for name in ENCODERS.names():
        node = {"name": name, **load_examples(ENCODERS, name).example(tmp_path_factory.mktemp(name))}
        torch.manual_seed(0)
        encoder = ENCODERS.build(node)
        made[name] = World(encoder, node, encoder.preprocess.kind)
    return made


@pytest.fixture(scope="module")
def features(worlds):
    """Name of an encoder -> features of two media that came through the data side, and their context."""
    return {name: _encode(world) for name, world in worlds.items()}


def _encode(world: World) -> tuple[Features, Context]:
    model = compose(encoders=world.encoders).eval()
    processor = Processor(model.spec(), None, model.tokens)
    batch = processor([world.sample(name) for name in ("one", "two")])
    with torch.no_grad():
        made = model.encode(batch)
    return made[world.kind], Context(kind=world.kind, extent=batch.media[world.kind].extent)


def _misfit(adapter: str, part: nn.Module, features: Features) -> bool:
    layers = {int(need.split(":")[1]) for need in part.needs if need.startswith("layers:")}
    return bool(layers - set(features.layers)) or (adapter in NEEDS_RASTER and features.grid is None)


def _build(adapter: str, features: Features, kind: str, folder) -> nn.Module:
    node = {"name": adapter, **load_examples(ADAPTERS, adapter).example(folder)}
    node |= {"kinds": [kind]} if adapter == "universal_projection" else {}
    torch.manual_seed(0)
    return ADAPTERS.build(node, in_dim=features.tokens.shape[2], out_dim=OUT_DIM)


def _learn(part: nn.Module, features: Features, context: Context, steps: int) -> list[float]:
    """Losses of steps towards random numbers."""
    target = torch.randn(part(features, context).tokens.shape, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(part.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = (part(features, context).tokens - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ENCODERS.names())
def test_it_answers_a_sample_and_runs_once_per_prompt(name, worlds, llama_folder):
    world = worlds[name]
    model = compose(
        encoders=world.encoders,
        adapters={world.kind: {"name": "linear"}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=tuple(world.encoders)),
    )
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    batch = processor([world.sample("one"), world.sample("another")])
    media = batch.media[world.kind]
    made = model.encode(batch)[world.kind]
    real = made.tokens.shape[0] * made.tokens.shape[1] if made.mask is None else int(made.mask.sum())
    assert int(media.slots.sum()) == real > 0
    model.encoders.requires_grad_(False)
    report = model.train()(batch)
    report.total.backward()
    assert report.total.isfinite() and model.adapters[world.kind].project.weight.grad.abs().sum() > 0
    frozen = [m for m in model.encoders.modules() if list(m.parameters())][1:]
    assert not any(module.training for module in frozen)
    passes = []
    model.encoders[world.kind].register_forward_hook(lambda *_: passes.append(1))
    answers = generate(model.eval(), processor, [world.sample("one", prompt=True)], max_new_tokens=4)
    assert len(answers) == len(passes) == 1


@pytest.mark.parametrize("name", ENCODERS.names())
@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_pairs_fit_or_say_why_not(adapter, name, features, worlds, tmp_path):
    read, context = features[name]
    part = _build(adapter, read, context.kind, tmp_path).train()
    layout = worlds[name].encoder.layout_of(context.kind, tuple(context.extent[0].tolist()))
    if _misfit(adapter, part, read):
        with pytest.raises(MMUnifyError):
            part(read, context)
        return
    made = part(read, context)
    made.tokens.sum().backward()
    assert made.tokens.isfinite().all() and made.tokens.shape[2] == OUT_DIM
    assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())
    if made.mask is None and read.mask is None:
        assert part.layout(layout).num_slots == made.tokens.shape[1]


@pytest.mark.parametrize("name", ENCODERS.names())
def test_features_survive_the_cache(name, features, worlds):
    """What an encoder says of a batch is what the cache makes of its items."""
    read, context = features[name]
    if not worlds[name].encoder.cacheable:
        return
    again = join_items(split_features(read, [(width, height) for width, height in context.extent.tolist()]))
    assert torch.equal(again.tokens, read.tokens)
    assert again.mask is read.mask is None or torch.equal(again.mask, read.mask)
    assert (again.grid, again.num_frames) == (read.grid, read.num_frames)
    pairs = [(again.pooled, read.pooled), (again.centers, read.centers)]
    pairs += [(again.layers[index], states) for index, states in read.layers.items()]
    assert all(one is other is None or torch.equal(one, other) for one, other in pairs)


def _learns(adapter: str, name: str, features, folder) -> None:
    read, context = features[name]
    part = _build(adapter, read, context.kind, folder).train()
    if not _misfit(adapter, part, read):
        losses = _learn(part, read, context, steps=20)
        assert losses[-1] < 0.98 * losses[0], losses


SOME = [(a, e) for i, a in enumerate(ADAPTERS.names()) for j, e in enumerate(ENCODERS.names()) if (i + 3 * j) % 8 == 0]


@pytest.mark.parametrize(("adapter", "name"), SOME)
def test_some_pairs_learn(adapter, name, features, tmp_path):
    """Every adapter and every encoder is in some pair."""
    assert {a for a, _ in SOME} == set(ADAPTERS.names()) and {e for _, e in SOME} == set(ENCODERS.names())
    _learns(adapter, name, features, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS.names())
@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_all_pairs_learn(adapter, name, features, tmp_path):
    _learns(adapter, name, features, tmp_path)
