import json
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmunify.data.mixture import Mixture
from mmunify.data.packing import RowPacker
from mmunify.data.processor import Processor
from mmunify.errors import DataError, UserError
from mmunify.registry import DATASETS
from mmunify.train.loader import (
    WindowLoader,
    require_packing,
    stage_batches,
    stage_samples,
    stage_steps,
)
from mmunify.train.stages import train
from mmunify.types import Batch, Sample
from tests.train.small import SmallTalk, small_recipe
from tests.train.worlds import ToyProcessor, toy_batch, toy_stage


def loader(**options) -> WindowLoader:
    return WindowLoader(range(10_000), ToyProcessor(), **{"batch_size": 4, "steps": 5, **options})


def keys(windows) -> list[list[int]]:
    return [[key for batch in window.batches for key in batch.keys] for window in windows]


def test_steps_take_consecutive_samples():
    assert keys(loader()) == [list(range(4 * step, 4 * step + 4)) for step in range(5)]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_any_split_of_a_step_sees_the_same_samples(world, accumulate):
    whole = keys(loader(batch_size=8))
    size = 8 // world // accumulate
    parts = [keys(loader(batch_size=size, rank=r, world=world, accumulate=accumulate)) for r in range(world)]
    assert [sum(shares, []) for shares in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumes_exactly(num_workers):
    first = loader(num_workers=num_workers)
    before = [window for window, _ in zip(first, range(2), strict=False)]
    second = loader(num_workers=num_workers)
    second.load_state_dict({"position": 2})
    after = list(second)
    assert keys(before + after) == keys(loader())
    assert second.state_dict()["position"] == 5 and len(second) == 5
    assert list(second) == []


def test_position_counts_what_was_handed_out():
    windows = loader()
    iterator = iter(windows)
    next(iterator), next(iterator)
    assert windows.state_dict()["position"] == 2
    assert windows.state_dict()["bad_samples"] == {"num_read": 8, "num_bad": 0, "listed": []}


class Letters:
    """A data set of one letter."""

    def __init__(self, letter: str = "a", size: int = 50) -> None:
        self.letter, self.size = letter, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        return Sample(turns=(), id=f"{self.letter}{index}")


def test_stage_samples_mix_sources_by_weight():
    data = [{"name": "letters", "letter": "a", "weight": 3}, {"name": "letters", "letter": "b"}]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data), [7, 0])
        again, other = stage_samples(toy_stage(data=data), [7, 0]), stage_samples(toy_stage(data=data), [7, 1])
    ids = [samples[k].id for k in range(400)]
    assert ids == [again[k].id for k in range(400)] and ids != [other[k].id for k in range(400)]
    assert 0.65 < sum(name.startswith("a") for name in ids) / 400 < 0.85


def test_mix_source_fills_a_batch_from_one_source():
    data = [{"name": "letters", "letter": letter} for letter in "ab"]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data, mix="source", batch_size=5), [0, 0])
    batches = [{samples[5 * step + i].id[0] for i in range(5)} for step in range(20)]
    assert all(len(letters) == 1 for letters in batches) and len(set.union(*batches)) == 2


def test_empty_and_missing_data():
    with DATASETS.temporary("letters", Letters), pytest.raises(DataError, match="Letters is empty"):
        stage_samples(toy_stage(data=[{"name": "letters", "size": 0}]), [0])
    with pytest.raises(DataError, match="at least one data set"):
        stage_samples(toy_stage(), [0])


class Talks(Letters):
    """Letters of tasks: every third asks for a drawing."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(turns=(), id=f"{self.letter}{index}", task="draw" if index % 3 == 0 else "ask")


class Names:
    """A processor of samples' ids; samples with an odd number are a position longer."""

    def encode(self, sample: Sample) -> SimpleNamespace:
        return SimpleNamespace(id=sample.id, input_ids=[0] * (6 + int(sample.id[1:]) % 2))

    def collate(self, examples: list[SimpleNamespace]) -> Batch:
        return replace(toy_batch(*range(len(examples))), sample_ids=tuple(example.id for example in examples))


def test_mix_task_fills_a_batch_with_one_task():
    data = [{"name": "talks", "letter": "a", "size": 30}, {"name": "talks", "letter": "b", "size": 60, "weight": 2}]
    with DATASETS.temporary("talks", Talks):
        samples = stage_samples(toy_stage(data=data, mix="task", batch_size=4), [0, 0])
    batches = [[samples[k] for k in samples.members(j, 4)] for j in range(90)]
    kinds = [{(sample.task, sample.id[0]) for sample in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds)
    assert 0.2 < sum(("draw", "a") in kind or ("draw", "b") in kind for kind in kinds) / 90 < 0.47
    assert {sample.id for batch in batches for sample in batch} > {f"b{i}" for i in range(60)}


def test_a_source_may_have_its_own_batch_size():
    data = [{"name": "letters", "letter": "a", "batch_size": 2}, {"name": "letters", "letter": "b"}]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data, mix="source", batch_size=5), [0, 0])
    windows = list(WindowLoader(samples, Names(), batch_size=5, steps=20))
    assert {(ids[0][0], len(ids)) for ids in (window.sample_ids for window in windows)} == {("a", 2), ("b", 5)}


@pytest.mark.parametrize("mix", ["sample", "source"])
def test_the_world_may_change_where_the_global_batch_stays(mix):
    """1 x 4, 2 x 2 and 4 x 1: ranks and batches to accumulate."""
    data = [{"name": "letters", "letter": letter} for letter in "ab"]
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=data, mix=mix, batch_size=3), [0, 0])
    options = {"batch_size": 3, "steps": 6}
    seen = []
    for world in (1, 2, 4):
        ranks = [
            list(WindowLoader(samples, Names(), rank=r, world=world, accumulate=4 // world, **options))
            for r in range(world)
        ]
        seen.append([sum((window.sample_ids for window in step), []) for step in zip(*ranks, strict=True)])
    assert seen[0] == seen[1] == seen[2] and len(seen[0][0]) == 12


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"steps": 7}, 7), ({"epochs": 1}, 10), ({"epochs": 2.5}, 25), ({"epochs": 0.01}, 1), ({"tokens": 300}, 6)],
)
def test_steps_of_a_stage(length, steps):
    """80 samples in batches of 4, twice per step; on tokens, a sample has 6 or 7 of them."""
    stage = toy_stage(**{"steps": 0, "accumulate": 2, "data": [{"name": "letters", "size": 80}], **length})
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(stage, [0])
    assert stage_steps(stage, samples, Names()) == steps
    if "epochs" in length:
        assert stage_steps(stage, samples, Names(), world=2) == -(-steps // 2)


def test_an_epoch_has_every_sample_once():
    stage = toy_stage(steps=0, epochs=1, temperature=1, data=[{"name": "letters", "letter": x} for x in "ab"])
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(stage, [0])
    windows = list(WindowLoader(samples, Names(), batch_size=4, steps=stage_steps(stage, samples, Names())))
    ids = [name for window in windows for name in window.sample_ids]
    assert sorted(ids) == sorted(f"{x}{i}" for x in "ab" for i in range(50))


def test_data_smaller_than_a_batch_is_refused():
    with DATASETS.temporary("letters", Letters):
        samples = stage_samples(toy_stage(data=[{"name": "letters", "size": 9}]), [0])
    WindowLoader(samples, Names(), batch_size=3, steps=1, world=3)
    with pytest.raises(DataError, match="have 9 samples, fewer than a batch of 5 on each of 2 processes"):
        WindowLoader(samples, Names(), batch_size=5, steps=1, world=2)


# --------------------------------------------------------------------------------------- bad samples


@pytest.fixture
def damaged(tmp_path):
    """A conversation file of 60 pictures, of which some are damaged on disk in different ways, and one line no JSON."""
    lines = []
    for i in range(60):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x" * (400 if i == 50 else 1 + i % 7)}]
        lines.append(json.dumps({"id": f"talk-{i}", "image": f"{i}.png", "conversations": talk}))
    whole = (tmp_path / "7.png").read_bytes()
    (tmp_path / "7.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "20.png").write_bytes(b"")
    (tmp_path / "33.png").write_text("no picture")
    (tmp_path / "41.png").unlink()
    lines[11] = "{no json"
    (tmp_path / "talks.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "talks.jsonl")


BAD = {
    "talk-7": "7.png cannot be read",
    "talk-20": "20.png is empty",
    "talk-33": "33.png cannot be read",
    "talk-41": "41.png does not exist",
    "talk-50": "more than max_length=256",
    "JSONLines[11]": "talks.jsonl, line 12: not JSON",
}


def damaged_loader(path: str, model, **options) -> WindowLoader:
    data = [{"name": "jsonl", "path": path}]
    packing = {name: options.pop(name) for name in ("packing", "batch_tokens") if name in options}
    stage = toy_stage(data=data, batch_size=6, **packing)
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens, max_length=256)
    samples, maker = stage_samples(stage, [3]), stage_batches(stage, processor)
    return WindowLoader(samples, maker, **{"batch_size": 6, "steps": 10, "bad_samples": 0.2, **options})


def ids(windows) -> list[list[str]]:
    return [window.sample_ids for window in windows]


@pytest.mark.parametrize("packing", [{}, {"packing": True}, {"packing": True, "batch_tokens": 512}])
def test_bad_samples_are_replaced_and_told(damaged, model, packing, caplog):
    windows = damaged_loader(damaged, model, **packing)
    seen = ids(windows)
    assert {len(step) for step in seen} == {6} and not any(name in BAD for step in seen for name in step)
    told = windows.bad_samples
    assert {one.id for one in told.listed} == set(BAD)
    assert all(BAD[one.id] in one.reason for one in told.listed)
    assert told.num_read == 60 + told.num_bad and told.num_bad >= 6
    assert len(caplog.messages) == 6 and all(message.startswith("left out ") for message in caplog.messages)


@pytest.mark.parametrize(
    ("packing", "num_workers"), [({}, 0), ({"packing": True, "batch_tokens": 320}, 2)], ids=["rows", "packed"]
)
def test_bad_samples_are_the_same_whoever_reads_and_after_a_resume(damaged, model, packing, num_workers):
    whole = damaged_loader(damaged, model, **packing)
    windows = list(whole)
    first = damaged_loader(damaged, model, num_workers=num_workers, **packing)
    before = list(islice(first, 6))
    second = damaged_loader(damaged, model, num_workers=2 - num_workers, **packing)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    resumed = before + list(second)
    assert ids(resumed) == ids(windows) and second.state_dict() == whole.state_dict()
    batches, again = ([[batch.input_ids for batch in window.batches] for window in some] for some in (windows, resumed))
    torch.testing.assert_close(again, batches, rtol=0, atol=0)
    ranks = [damaged_loader(damaged, model, rank=r, world=2, batch_size=3, **packing) for r in range(2)]
    steps = list(zip(*map(ids, ranks), strict=True))
    assert [sorted(left + right) for left, right in steps] == [sorted(step) for step in ids(windows)]


def test_too_many_bad_samples_end_the_run(damaged, model):
    with pytest.raises(DataError, match=r"1 of \d+ samples can't be used, more than bad_samples=0 allows:\n  "):
        list(damaged_loader(damaged, model, bad_samples=0.0))
    with pytest.raises(DataError, match=r"11 of \d+ samples can't be used, more than bad_samples=0.01") as caught:
        list(damaged_loader(damaged, model, bad_samples=0.01, steps=40))
    assert all(f"{name}: " in str(caught.value) for name in BAD)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_that_is_bad_throughout_ends_the_run_at_once(damaged, model, tmp_path, num_workers):
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    with pytest.raises(DataError, match=r"none of 10 samples drawn one after the other can be used:(.|\n)*not exist"):
        list(damaged_loader(damaged, model, num_workers=num_workers))


# --------------------------------------------------------------------------------------- packing


def talk_loader(model, packer=True, **options) -> WindowLoader:
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens, max_length=256)
    maker = RowPacker(processor, packing=True, batch_tokens=320) if packer else processor
    return WindowLoader(Mixture([(SmallTalk(), 1.0)]), maker, **{"batch_size": 8, "steps": 5, **options})


def test_packing_changes_rows_and_not_samples(model):
    packed, alone = list(talk_loader(model)), list(talk_loader(model, packer=False))
    assert [sorted(step) for step in ids(packed)] == [sorted(step) for step in ids(alone)]
    assert len({len(window.batches) for window in packed}) > 1
    assert all(batch.input_ids.numel() <= 320 for window in packed for batch in window.batches)


def test_ranks_run_equally_many_batches(model, monkeypatch):
    alone = [[len(window.batches) for window in talk_loader(model, rank=r, world=2)] for r in range(2)]
    assert any(left != right for left, right in zip(*alone, strict=True))
    parts = [list(talk_loader(model, rank=r, world=2, steps=1)) for r in range(2)]
    most = max(len(window.batches) for (window,) in parts)
    monkeypatch.setattr("mmunify.train.loader.exchange", lambda told: [*told, ([], 9)])
    (window,) = talk_loader(model, rank=0, world=2, steps=1)
    assert len(window.batches) == 9 > most
    assert all(int((batch.labels != -100).sum()) == 0 for batch in window.batches[most:])


def test_a_backbone_that_mixes_documents_is_refused(model):
    stage = toy_stage(packing=True)
    require_packing(stage, model)
    model.backbone.supports = frozenset({"cache"})
    require_packing(toy_stage(), model)
    with pytest.raises(UserError, match="stage 'toy' says packing: true, but the backbone can't keep"):
        require_packing(stage, model)


def test_a_run_of_epochs_packs_and_tells_of_bad_samples(damaged, llama_folder, tmp_path):
    stage = {"name": "see", "learns": ["adapters.*"], "epochs": 0.5, "batch_size": 6, "packing": True}
    stage |= {"data": [{"name": "jsonl", "path": damaged}], "bad_samples": 0.3}
    recipe = small_recipe(llama_folder, stages=[stage, {**stage, "name": "again", "epochs": None, "tokens": 150}])
    train(recipe, tmp_path / "run", progress=False)
    stages = json.loads((tmp_path / "run" / "report.json").read_text())["stages"]
    assert stages["see"]["steps"] == 5 and 1 <= stages["again"]["steps"] <= 3
    told = stages["see"]["bad_samples"]
    assert told["num_read"] == 30 + told["num_bad"] and {one["id"] for one in told["listed"]} <= set(BAD)
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"Samples: {told['num_read']} read, {told['num_bad']} left out" in report
    assert all(f"- {one['id']}: {one['reason']}" in report for one in told["listed"]) and told["listed"]
