import numpy as np
import pytest
import torch

from mmunify.data.numbers import open_numbers, prepare_numbers, read_numbers
from mmunify.errors import DataError
from mmunify.layers.numbers import NumbersPreprocess

SHAPE = NumbersPreprocess(kind="imu", shape=(2, 3))


def test_arrays_and_files(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    for source in (values, torch.from_numpy(values), values.tolist(), tmp_path / "a.npy", str(tmp_path / "a.npy")):
        medium = open_numbers(source)
        assert medium.extent == (6, 1)
        assert prepare_numbers(medium, SHAPE).tolist() == values.tolist()


def test_another_shape_is_named():
    with pytest.raises(DataError, match=r"shape \(3, 2\), where the encoder of 'imu' reads \(2, 3\)"):
        prepare_numbers(open_numbers(np.zeros((3, 2))), SHAPE)


def test_what_is_no_medium(tmp_path):
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY")
    for source, message in (
        (np.zeros((0, 3)), r"is empty: shape \(0, 3\)"),
        (np.array([1.0, np.nan]), r"a medium of shape \(2,\) holds numbers that are not finite"),
        ("one", "one is no medium of numbers; give a .npy file"),
        (object(), "a medium must be numbers; got object"),
        (tmp_path / "a.txt", "is no medium of numbers; give a .npy file or the numbers"),
        (tmp_path / "b.npy", "b.npy cannot be read as an array"),
    ):
        with pytest.raises(DataError, match=message):
            open_numbers(source)
    assert read_numbers(3).item() == 3
