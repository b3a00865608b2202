import os

import numpy as np
import pytest
import torch
from PIL import Image

from mmunify.data.cache.content import content_digest
from mmunify.data.sound import read_sound


def test_the_same_bytes_under_another_name(tmp_path):
    for name, content in (("a.png", b"one"), ("b.png", b"one"), ("c.png", b"two")):
        (tmp_path / name).write_bytes(content)
    same, also, other = (content_digest(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert same == also == content_digest(str(tmp_path / "a.png")) != other


def test_a_file_that_changes_has_another_digest(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    before = content_digest(file)
    file.write_bytes(b"two")  # as many bytes
    os.utime(file, ns=(1, 2))
    assert content_digest(file) != before


def test_every_kind_of_source_has_its_own():
    numbers = np.arange(6, dtype=np.uint8)
    sources = [
        numbers,
        numbers.reshape(2, 3),
        numbers.astype(np.int8),
        torch.arange(6).float(),
        [numbers, numbers],
        (numbers, 6),
        (numbers.astype(np.float32) / 10, 16_000),
        read_sound((numbers.astype(np.float32) / 10, 16_000)),
        Image.new("RGB", (2, 3)),
        Image.new("RGB", (3, 2)),
        Image.new("L", (2, 3)),
    ]
    digests = [content_digest(source) for source in sources]
    assert len(set(digests)) == len(sources) and None not in digests
    assert digests == [content_digest(source) for source in sources]


def test_palettes_and_rotations_count():
    first, second = (Image.new("P", (2, 2)) for _ in range(2))
    second.putpalette([9, 9, 9])
    turned = Image.new("RGB", (2, 2))
    turned.getexif()[0x0112] = 6
    assert content_digest(first) != content_digest(second)
    assert content_digest(turned) != content_digest(Image.new("RGB", (2, 2)))


def test_folders_are_names_and_content(tmp_path):
    for folder, name in (("a", "0.png"), ("b", "0.png"), ("c", "1.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"one")
    same, also, other = (content_digest(tmp_path / name) for name in "abc")
    assert same == also != other


@pytest.mark.parametrize("source", [None, object(), "nowhere.png", {"a": 1}])
def test_what_cannot_be_told_has_none(source):
    assert content_digest(source) is None
