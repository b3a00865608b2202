"""The training benchmark runs, and both of its sides do the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
SIZES = ["--hidden", "32", "--depth", "2", "--vocabulary", "1300"]


@pytest.fixture(scope="module")
def modules():
    """The benchmark's own modules, which import each other by their plain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import _cache_gain
        import _conversations
        import _pair
        import training

        yield {"cache": _cache_gain, "conversations": _conversations, "pair": _pair, "training": training}


@pytest.fixture(scope="module")
def fixtures(modules, tmp_path_factory):
    """Captions, questions and a photo in the files that the benchmark reads."""
    from PIL import Image

    conversations, folder = modules["conversations"], tmp_path_factory.mktemp("fixtures")
    captions = [[f"A dog number {i} {'runs ' * j}past a red bus" for j in range(5)] for i in range(6)]
    lines = {
        conversations.CAPTIONS: [{"captions": some} for some in captions],
        conversations.QUESTIONS: [{"text": f"What is the {thing} doing?"} for thing in ("dog", "bus", "old man")],
    }
    for name, records in lines.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(map(json.dumps, records)))
    photo = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    (folder / conversations.PHOTO).parent.mkdir(parents=True)
    Image.fromarray(photo).save(folder / conversations.PHOTO)
    return folder


@pytest.fixture(scope="module")
def shape(modules):
    return modules["pair"].Shape(vocabulary=1300, hidden=32, inner=48, depth=2, tower=32, tower_depth=2, rank=2)


@pytest.fixture(scope="module")
def workload(modules):
    return modules["conversations"].Workload(name="tiny", grid=2, blind=0.25)


@pytest.fixture(scope="module")
def found(modules, fixtures, shape, workload):
    setting = modules["pair"].Setting(fixtures=fixtures)
    return modules["training"].compare(workload, shape, setting, batches=2, turns=2)


def test_both_sides_do_the_same(found):
    losses = found.loss
    assert losses["ours"] == pytest.approx(losses["theirs"], abs=1e-5)
    assert losses["ours, packed"] == pytest.approx(losses["theirs"], abs=1e-5)
    assert 0 <= found.gradient_difference < 1e-4


def test_every_contender_has_its_turns(found):
    names = {"ours", "ours, packed", "theirs", "theirs, grouped by length"}
    assert set(found.seconds) == set(found.positions) == names
    assert len(found.ratios) == 4 and {len(ratios) for ratios in found.ratios.values()} == {2}
    assert min(found.seconds.values()) > 0 and found.loading > 0 and found.loading_ratio > 0
    assert min(found.allocated_mib.values()) > 0


def test_positions_are_those_of_the_samples(found):
    positions = found.positions
    assert found.samples == 16 and 0 < found.supervised < found.real
    assert found.real <= positions["ours, packed"] < positions["ours"]
    assert found.real <= positions["theirs, grouped by length"] <= positions["theirs"] <= positions["ours"]


def test_table_has_a_row_per_contender_and_pair(modules, found):
    lines = modules["training"].table(found).splitlines()
    assert sum(line.startswith("| ours") for line in lines) == 2
    assert sum(line.startswith("| theirs /") for line in lines) == 2
    assert "16 samples" in lines[0] and "two workers read" in lines[-1].replace("\n", " ")


def test_same_tensors_learn_from_the_same_values(modules, fixtures, shape, tmp_path):
    pair = modules["pair"]
    pair.write_theirs(tmp_path, shape, 2, fixtures)
    ours, theirs = pair.load_ours(tmp_path).model, pair.load_theirs(tmp_path)
    learning = [sorted(tuple(p.shape) for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    assert learning[0] == learning[1] and len(learning[0]) == 2 * 7 * shape.depth + 4
    sums = [
        sum(float(p.detach().double().abs().sum()) for p in m.parameters() if p.requires_grad) for m in (ours, theirs)
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)


def test_samples_follow_the_workload(modules, fixtures, tmp_path):
    conversations = modules["conversations"]
    workload = conversations.Workload(name="mixed", grid=2, blind=0.3, turns=(2, 4), captions=5)
    path = conversations.write_samples(tmp_path, fixtures, workload, 20)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum("image" not in record for record in records) == 6
    assert {len(record["conversations"]) for record in records} == {4, 6, 8}
    assert all(record["conversations"][1]["value"].count("A dog number") == 5 for record in records)
    assert all((tmp_path / record["image"]).is_file() for record in records if "image" in record)
    before = path.read_text()
    assert conversations.write_samples(tmp_path, fixtures, workload, 20).read_text() == before


def test_tokenizer_reads_back_what_it_wrote(modules, tmp_path):
    tokenizer = modules["conversations"].write_tokenizer(tmp_path, ["a dog runs", "a bus runs past"] * 5, 1300)
    ids = tokenizer("a dog runs past a Bus", add_special_tokens=False).input_ids
    assert len(tokenizer) == 1300 and max(ids) < 1290 and tokenizer.decode(ids) == "a dog runs past a Bus"
    assert tokenizer.convert_tokens_to_ids("<image>") == 1299


def test_cache_gives_equal_answers(modules, fixtures, workload):
    cache = modules["cache"]
    sizes = {"vocabulary": 1300, "hidden": 32, "inner": 48, "depth": 1, "tower": 32, "tower_depth": 2, "grid": 3}
    setting = modules["pair"].Setting(fixtures=fixtures)
    found = cache.compare_cache(workload, cache.CacheShape(**sizes), setting, batches=1, turns=1)
    assert found.is_equal
    assert found.live > 0 and found.cached > 0 and 0 < found.tower_share < 1
    assert "losses and gradients are equal" in modules["training"].cache_line(found)


def test_command_writes_what_it_found(modules, fixtures, tmp_path, capsys, monkeypatch):
    training = modules["training"]
    monkeypatch.setattr(training, "SHORT", modules["conversations"].Workload(name="short", grid=2))
    path = tmp_path / "found.json"
    arguments = ["--only", "short", "--fixtures", str(fixtures), "--batches", "1", "--turns", "1", "--json", str(path)]
    training.main([*arguments, *SIZES])
    found = json.loads(path.read_text())
    assert set(found) == {"machine", "short"} and found["short"]["samples"] == 8
    assert f"torch {torch.__version__}" in capsys.readouterr().out
