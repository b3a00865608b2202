"""Energon's index, read by number. What needs the package is run where it is installed."""

import json
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from mmunify.data.datasets.energon import EnergonDataset
from mmunify.data.pictures import read_picture
from mmunify.errors import DataError, MissingExtraError
from tests.data.datasets.test_webdataset import BLUE, RED, picture, talk, write_tar


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "megatron", None)
    for name in [name for name in sys.modules if name.startswith("megatron.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match="dataset energon needs the package 'megatron-energon': pip install"):
        EnergonDataset("somewhere")


@pytest.fixture
def energon():
    return pytest.importorskip("megatron.energon", reason="Megatron-Energon is not installed")


def prepare(folder, fields: dict | None, **splits: str) -> str:
    """Index the tars of a folder, as `energon prepare` does."""
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    parts = [(name, tars) for name, tars in (splits or {"train": ".*"}).items()]
    paths = sorted(path.name for path in folder.glob("*.tar"))
    WebdatasetPreparator.prepare_dataset(
        EPath(folder), paths, split_parts_patterns=parts, progress_fn=lambda items, total: items, workers=1
    )
    kind = "CrudeWebdataset" if fields is None else "CaptioningSample"
    about = {"sample_type": {"__module__": "megatron.energon", "__class__": kind}, "field_map": fields}
    (folder / ".nv-meta" / "dataset.yaml").write_text(json.dumps({k: v for k, v in about.items() if v is not None}))
    return str(folder)


def words(sample) -> list[str]:
    return [part.text for turn in sample.turns for part in turn.parts if hasattr(part, "text")]


def test_pairs_by_the_field_map(energon, tmp_path):
    write_tar(tmp_path / "a.tar", k1__png=picture(RED), k1__txt=b"red\n", k2__png=picture(BLUE), k2__txt=b"blue")
    write_tar(tmp_path / "b.tar", k3__png=picture(BLUE), k3__txt=b"third")
    found = EnergonDataset(prepare(tmp_path, {"image": "jpg,png", "caption": "txt"}), prompt="What?")
    assert len(found) == 3
    assert [words(found[i]) for i in (2, 0, 1)] == [["What?", "third"], ["What?", "red"], ["What?", "blue"]]
    assert read_picture(found[0].turns[0].parts[0].source).getpixel((0, 0)) == RED
    assert (found[1].id, found[1].task, found[1].source) == ("k2", "caption", "train")
    with pytest.raises(IndexError, match="sample 3 of an Energon data set with 3"):
        found[3]


def test_questions_out_of_json_and_conversations(energon, tmp_path):
    write_tar(tmp_path / "a.tar", q__png=picture(), q__json={"ask": "how many", "say": ["two", "2"]})
    asked = EnergonDataset(prepare(tmp_path, {"image": "png", "context": "json[ask]", "answers": "json[say]"}))
    assert words(asked[0]) == ["how many", "two"]
    (tmp_path / "talks").mkdir()
    write_tar(tmp_path / "talks" / "a.tar", t__jpg=picture(), t__json={"conversations": talk("<image> who", "me")})
    assert words(EnergonDataset(prepare(tmp_path / "talks", None))[0]) == [" who", "me"]


def test_parts_and_processes(energon, tmp_path):
    for name in "abc":
        members = {f"{name}{i}__png": picture() for i in range(9)}
        members |= {f"{name}{i}__txt": f"{name}{i}".encode() for i in range(9)}
        write_tar(tmp_path / f"{name}.tar", **{key: members[key] for key in sorted(members)})
    folder = prepare(tmp_path, {"image": "png", "caption": "txt"}, train="[ab].tar", val="c.tar")
    train, val = EnergonDataset(folder), EnergonDataset(folder, split="val")
    assert (len(train), len(val)) == (18, 9) and words(val[3])[1] == "c3"
    assert train[0].id == "a0"  # its reader is open now
    assert pickle.loads(pickle.dumps(train))[10].id == "b1"
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_ids, [train] * 4)) == [[f"{x}{i}" for x in "ab" for i in range(9)]] * 4


def _ids(dataset: EnergonDataset) -> list[str]:
    return [dataset[i].id for i in range(len(dataset))]


def test_what_is_no_data_set(energon, tmp_path):
    with pytest.raises(DataError, match="holds no Energon data set with a part 'train'.*energon prepare"):
        EnergonDataset(str(tmp_path))
    write_tar(tmp_path / "a.tar", k1__png=picture(), k1__txt=b" ", k2__txt=b"no picture")
    folder = prepare(tmp_path, {"image": "png", "caption": "txt"})
    with pytest.raises(DataError, match="a part 'test'"):
        EnergonDataset(folder, split="test")
    found = EnergonDataset(folder)
    with pytest.raises(DataError, match="a.tar, k1: no words in any of caption, answers, text"):
        found[0]
    with pytest.raises(DataError, match="k2: no member png; the sample has txt"):
        found[1]
    os.truncate(tmp_path / "a.tar", 100)
    with pytest.raises(DataError, match="sample 0 of 'train' cannot be read"):
        EnergonDataset(folder)[0]
