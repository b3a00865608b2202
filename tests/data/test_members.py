"""Members of a sample, wherever they are read from."""

import json

import pytest

from mmunify.data.members import Members
from mmunify.data.pictures import read_picture
from mmunify.errors import DataError
from tests.data.datasets.test_webdataset import BLUE, RED, picture, talk


def members(**content: bytes) -> Members:
    """`__` for a point."""
    parts = {name.replace("__", "."): value for name, value in content.items()}
    return Members(key="k1", place="a.tar, k1", source="a", extensions=list(parts), read=parts.__getitem__)


def test_a_pair_and_a_conversation():
    pair = members(png=picture(RED), txt=b" red\n").sample("What?", "caption")
    assert (pair.id, pair.task, pair.source) == ("k1", "caption", "a")
    assert [part.text for part in pair.turns[0].parts[1:] + pair.turns[1].parts] == ["What?", "red"]
    record = {"image": ["0.png", "k1.1.png"], "conversations": talk("<image><image>", "both")}
    talked = members(**{"0__png": picture(RED), "1__png": picture(BLUE), "json": json.dumps(record).encode()})
    shown = talked.sample("", "").turns[0].parts
    assert [read_picture(part.source).getpixel((0, 0)) for part in shown] == [RED, BLUE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"txt": b"words"}, "a.tar, k1: a pair has a picture .*this one has txt"),
        ({"json": b"{"}, "k1.json: not JSON"),
        ({"json": b"[]"}, "k1.json: must hold a JSON object, not a list"),
        ({"png": b"", "txt": b"words"}, "k1.png cannot be read as a picture"),
        ({"json": json.dumps({"image": "x.jpg", "conversations": talk("<image>", "y")}).encode()}, "no member 'x.jpg'"),
    ],
)
def test_what_cannot_be_used(content, message):
    with pytest.raises(DataError, match=message):
        members(**content).sample("", "caption")
