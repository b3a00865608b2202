"""Conversation files: lazy, in order, and honest about where they are wrong."""

import json
import pickle

import pytest

from mmunify.data.datasets.jsonl import JSONLines
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Media


def _record(name: str) -> dict:
    return {"image": f"{name}.png", "conversations": [{"from": "human", "value": f"<image>\n{name}"}]}


def _write(path, *names: str) -> str:
    path.write_text("\n\n".join(json.dumps(_record(name)) for name in names))
    return str(path)


def _words(data: JSONLines) -> list[str]:
    return [data[index].turns[0].parts[1].text for index in range(len(data))]


def test_files_follow_each_other(tmp_path) -> None:
    listed = tmp_path / "c.json"
    listed.write_text(json.dumps([_record("four"), _record("fünf")]))
    data = JSONLines([_write(tmp_path / "a.jsonl", "one", "zwölf"), _write(tmp_path / "b.jsonl", "three"), str(listed)])
    assert _words(data) == ["one", "zwölf", "three", "four", "fünf"]
    assert [data[index].id for index in range(5)] == ["a:1", "a:3", "b:1", "c:1", "c:2"]
    assert [data[index].source for index in (0, 2)] == ["a", "b"]


def test_media_start_from_the_file_or_from_root(tmp_path) -> None:
    path = _write(tmp_path / "a.jsonl", "one")
    assert JSONLines(path)[0].turns[0].parts[0] == Media(kind="image", source=str(tmp_path / "one.png"))
    assert JSONLines(path, root="/media")[0].turns[0].parts[0].source == "/media/one.png"


def test_it_is_registered_and_can_be_sent_to_workers(tmp_path) -> None:
    data = DATASETS.build({"name": "jsonl", "path": _write(tmp_path / "a.jsonl", "one", "two")})
    assert _words(pickle.loads(pickle.dumps(data))) == ["one", "two"]


def test_lines_are_read_when_asked_for(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(_record("one")) + "\n{'id': 2}\n")
    data = JSONLines(str(path))
    assert data[0].id == "a:1"
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not JSON: .*it begins b\"\{'id': 2\}"):
        data[1]


def test_bad_bytes_and_bad_records_name_the_line(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe\n\n{}\n")
    data = JSONLines(str(path))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: not JSON"):
        data[0]
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: conversations must be a list"):
        data[1]


@pytest.mark.parametrize("index", [-1, 1])
def test_indices_outside_are_refused(index: int, tmp_path) -> None:
    with pytest.raises(IndexError, match=f"sample {index} of conversation files with 1 records"):
        JSONLines(_write(tmp_path / "a.jsonl", "one"))[index]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", r"a\.jsonl holds no record \(0 bytes\)"),
        ("a.jsonl", "\n \n", r"holds no record \(3 bytes\)"),
        ("a.json", "[]", "holds no record"),
        ("a.json", "{}", r"a\.json must hold a JSON list of records; it holds a dict"),
        ("a.json", "[1", r"a\.json: not JSON"),
    ],
)
def test_files_without_records_are_refused(name: str, content: str, message: str, tmp_path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        JSONLines(str(tmp_path / name))


def test_missing_files_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"conversation file .*nothing\.jsonl does not exist"):
        JSONLines([_write(tmp_path / "a.jsonl", "one"), str(tmp_path / "nothing.jsonl")])
    with pytest.raises(DataError, match="path is empty"):
        JSONLines([])
