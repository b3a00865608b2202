import os

import pytest

from mmunify.checkpoint.swap import aside, put_in_place, recover, remove


def write(path, text, folder):
    file = path / "a" if folder else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def read(path):
    return (path / "a" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("was_folder", [True, False])
@pytest.mark.parametrize("is_folder", [True, False])
def test_the_new_takes_the_place_of_the_old(tmp_path, was_folder, is_folder):
    target = tmp_path / "x.ckpt"
    write(target, "old", was_folder)
    write(aside(target), "new", is_folder)
    put_in_place(target)
    assert read(target) == "new" and [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("killed_at", [0, 1])
def test_killed_between_two_renames(tmp_path, monkeypatch, killed_at):
    """The old one or the new one is there afterwards, whole."""
    target = tmp_path / "x.ckpt"
    write(target, "old", True)
    write(aside(target), "new", True)
    calls = []

    def interrupted(rename):
        def call(*paths):
            if len(calls) == killed_at:
                raise KeyError("killed")
            calls.append(paths)
            rename(*paths)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("mmunify.checkpoint.swap.os.replace", interrupted(os.replace))
        with pytest.raises(KeyError):
            put_in_place(target)
    recover(target)
    assert read(target) == "old"


def test_remove_takes_files_folders_and_nothing(tmp_path):
    write(tmp_path / "folder", "x", True)
    write(tmp_path / "file", "x", False)
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
