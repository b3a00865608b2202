"""Artifacts are saved under names that say what they are, and never over each other."""

import numpy as np
from PIL import Image

from mmunify.types import Artifact, TaskCall


def artifact(data, name="mask-red-7"):
    return Artifact(kind="mask", data=data, call=TaskCall(task="segment"), producer="test", name=name)


def test_masks_become_black_and_white_pictures(tmp_path):
    path = artifact(np.array([[True, False]])).save(tmp_path)
    assert path.name == "mask-red-7.png"
    assert np.array(Image.open(path)).tolist() == [[255, 0]]


def test_a_second_file_gets_a_number(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    names = [artifact(picture).save(tmp_path).name for _ in range(3)]
    assert names == ["mask-red-7.png", "mask-red-7-2.png", "mask-red-7-3.png"]


def test_a_file_name_and_missing_folders(tmp_path):
    path = artifact(np.zeros((2, 2, 3), np.uint8), name="").save(tmp_path / "deep" / "it.png")
    assert path == tmp_path / "deep" / "it.png" and path.exists()
    assert artifact(np.zeros((2, 2, 3), np.uint8), name="").save(tmp_path).name == "segment.png"
