"""Tars read by number: pairs and conversations, members where the sample is, and honest about damage."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmunify.data.datasets.webdataset import WebDataset
from mmunify.data.pictures import read_picture
from mmunify.errors import DataError
from mmunify.registry import DATASETS
from mmunify.types import Media, Text

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(colour=RED, kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, kind)
    return file.getvalue()


def write_tar(path, **members) -> str:
    """Members by name, `__` for a point."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def talk(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


def colour_of(part) -> tuple:
    return read_picture(part.source if isinstance(part, Media) else part.target).getpixel((0, 0))


def test_pairs_of_a_picture_and_its_words(tmp_path):
    write_tar(tmp_path / "b.tar", x__png=picture(BLUE), x__json={"caption": "blue"})
    write_tar(
        tmp_path / "a.tar", k1__jpg=picture(RED, "JPEG"), k1__txt=b"a red one\n", k2__txt=b"two", k2__png=picture()
    )
    data = DATASETS.build({"name": "webdataset", "path": str(tmp_path)})
    assert [(s.id, s.task, s.source) for s in map(data.__getitem__, range(len(data)))] == [
        ("k1", "caption", "a"),
        ("k2", "caption", "a"),
        ("x", "caption", "b"),
    ]
    asked, answer = data[0].turns
    assert asked.parts[1] == Text(text="Describe the image briefly.") and answer.parts == (Text(text="a red one"),)
    assert np.abs(np.subtract(colour_of(asked.parts[0]), RED)).max() < 8  # JPEG
    assert colour_of(data[2].turns[0].parts[0]) == BLUE
    silent = WebDataset(str(tmp_path / "b.tar"), prompt="", task="pair")
    assert len(silent[0].turns[0].parts) == 1 and silent[0].task == "pair"


def test_conversations_name_their_members_or_take_all_pictures(tmp_path):
    two = talk("<image>\n<image>\nWhich is red?", "the first")
    edit = {
        "id": "e",
        "image": "in.png",
        "conversations": talk("<image>\nmake it blue", "<img>"),
        "outputs": [{"target": "out.png"}],
    }
    named = {"image": ["n.b.png", "a.png"], "conversations": two}
    path = write_tar(
        tmp_path / "t.tar",
        **{"d/m__1.png": picture(RED), "d/m__2.png": picture(BLUE), "d/m__json": {"conversations": two}},
        **{"n__a.png": picture(RED), "n__b.png": picture(BLUE), "n__json": named},
        **{"e__json": edit, "e__in.png": picture(RED), "e__out.png": picture(BLUE)},
        w__json={"conversations": talk("hello", "hi"), "task": "chat"},
    )
    data = WebDataset([path])
    colours = [[colour_of(part) for part in data[index].turns[0].parts[:2]] for index in (0, 1)]
    assert colours == [[RED, BLUE], [BLUE, RED]]
    assert [data[index].id for index in range(4)] == ["d/m", "n", "e", "w"]
    assert colour_of(data[2].turns[1].parts[0]) == BLUE and data[3].task == "chat"


def test_samples_are_found_by_number_in_workers_too(tmp_path):
    members = {
        f"s{i:03}__{kind}": b"%d" % i if kind == "txt" else picture() for i in range(30) for kind in ("txt", "png")
    }
    data = pickle.loads(pickle.dumps(WebDataset(write_tar(tmp_path / "t.tar", **members))))
    assert [data[i].turns[1].parts[0].text for i in (29, 0, 17)] == ["29", "0", "17"]
    with pytest.raises(IndexError, match="sample 30 of tar files with 30 samples"):
        data[30]


def test_bad_samples_name_tar_and_key(tmp_path):
    path = write_tar(
        tmp_path / "t.tar",
        a__png=b"no picture",
        a__txt=b"words",
        b__txt=b"words alone",
        c__json=b"{'a': 1}",
        d__json=[1],
        e__json={"image": "jpg", "conversations": talk("<image>", "x")},
        f__png=picture()[:40],
        f__txt=b"cut",
    )
    data = WebDataset(path)
    wanted = [
        "t.tar, a.png cannot be read as a picture",
        "t.tar, b: a pair has a picture .* this one has txt",
        "t.tar, c.json: not JSON",
        "t.tar, d.json: must hold a JSON object, not a list",
        "t.tar, e: no member 'jpg'; the sample has json",
    ]
    for index, message in enumerate(wanted):
        with pytest.raises(DataError, match=message):
            data[index]
    with pytest.raises(DataError, match="cannot be read"):
        read_picture(data[5].turns[0].parts[0].source)


def test_bad_tars(tmp_path):
    whole = write_tar(tmp_path / "t.tar", a__txt=b"x" * 5000, b__txt=b"y")
    data = WebDataset(whole)
    (tmp_path / "t.tar").write_bytes((tmp_path / "t.tar").read_bytes()[:2000])
    with pytest.raises(DataError, match="is cut off"):
        data[0]
    (tmp_path / "cut.tar").write_bytes((tmp_path / "t.tar").read_bytes())
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 100)
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    for name in ("cut.tar", "no.tar", "z.tar"):
        with pytest.raises(DataError, match=f"{name} cannot be read as an uncompressed tar"):
            WebDataset(str(tmp_path / name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no .tar"):
        WebDataset(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="does not exist"):
        WebDataset(str(tmp_path / "none.tar"))
    with pytest.raises(DataError, match="holds no sample"):
        WebDataset(write_tar(tmp_path / "plain.tar", README=b"x"))
    with pytest.raises(DataError, match="path is empty"):
        WebDataset([])
