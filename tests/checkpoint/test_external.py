import hashlib

import pytest

from mmunify.checkpoint.external import (
    copy_external,
    portable_path,
    weight_digests,
    with_absolute_paths,
    with_inside_paths,
)
from mmunify.errors import CheckpointError
from mmunify.paths import PACKAGE


def test_digests_of_weight_files_alone(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert weight_digests(str(tmp_path)) == {"model.safetensors": expected}
    assert weight_digests(f"local-dir:{tmp_path}") == {"model.safetensors": expected}
    assert weight_digests(str(tmp_path / "model.safetensors")) == {"model.safetensors": expected}


def test_what_is_not_on_this_machine_has_no_digest():
    assert weight_digests("nobody/nothing-of-that-name") == {}


def test_paths_inside_the_package_stay_portable():
    assert portable_path(str(PACKAGE / "assets" / "tiny" / "tower")) == "assets:tiny/tower"
    assert portable_path("org/model") == "org/model"


def test_own_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {"model": {"backbone": {"path": "./lm"}, "heads": [{"path": "org/model"}, {"path": "assets:tiny/lm"}]}}
    assert with_absolute_paths(tree) == {
        "model": {
            "backbone": {"path": str(tmp_path / "lm")},
            "heads": [{"path": "org/model"}, {"path": "assets:tiny/lm"}],
        }
    }


def test_copies_are_found_again_wherever_the_bundle_lies(tmp_path):
    source = tmp_path / "lm"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"weights")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    tree = copy_external({"backbone": {"name": "huggingface", "path": str(source)}}, [str(source)], bundle)
    assert tree == {"backbone": {"name": "huggingface", "path": "bundle:external/0"}}
    found = with_inside_paths(tree, tmp_path / "bundle")["backbone"]["path"]
    assert weight_digests(found) == weight_digests(str(source))


def test_what_is_not_here_cannot_be_copied(tmp_path):
    with pytest.raises(CheckpointError, match="org/missing is neither on this machine nor in the hub's cache"):
        copy_external({}, ["org/missing"], tmp_path)
