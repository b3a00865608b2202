"""Files of streams: what is wrong with them."""

import pytest

from mmunify.data.streams import open_container, readable_file
from mmunify.errors import DataError, MissingExtraError


def test_a_file_that_can_be_read(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1")
    assert readable_file(str(tmp_path / "a.bin"), "video") == tmp_path / "a.bin"


def test_what_is_missing_empty_or_a_folder_is_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DataError, match=r"video .*a\.mp4 is empty \(0 bytes\)"):
        readable_file(tmp_path / "a.mp4", "video")
    with pytest.raises(DataError, match=r"sound .*b\.wav does not exist"):
        readable_file(tmp_path / "b.wav", "sound")
    with pytest.raises(DataError, match="is a folder, no file"):
        readable_file(tmp_path, "video")
    with pytest.raises(DataError, match="cannot be read"):
        readable_file("x" * 5000, "video")


def test_garbage_is_named(tmp_path):
    pytest.importorskip("av", reason="PyAV (the extra `video`) is not installed")
    (tmp_path / "a.mp4").write_bytes(b"no video at all" * 50)
    with (
        pytest.raises(DataError, match=r"video .*a\.mp4 cannot be read: .*Invalid data"),
        open_container(tmp_path / "a.mp4", "video"),
    ):
        pass


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"video input needs the package 'av': pip install 'mmunify\[video\]'"):
        open_container(tmp_path / "a.mp4", "video").__enter__()
