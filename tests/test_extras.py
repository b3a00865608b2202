"""A missing optional package is named together with the extra that brings it."""

import json

import pytest

from mmunify.errors import MissingExtraError
from mmunify.extras import extra_of, missing, require


def test_an_installed_package_is_returned():
    assert require("json", "reading") is json


def test_extras_come_from_the_package_metadata():
    assert extra_of("av") == "video"
    assert extra_of("tensorboard") == "tensorboard"
    assert extra_of("torch") is None


def test_the_message_holds_the_command():
    expected = "video input needs the package 'av': pip install 'mmunify[video]'"
    assert str(missing("av", "video input")) == expected
    assert str(missing("some_lib.sub", "x")) == "x needs the package 'some_lib': pip install some-lib"
    assert "needs the package 'megatron-energon': pip install" in str(missing("megatron.energon", "x"))


def test_a_missing_package_raises_it():
    with pytest.raises(MissingExtraError, match="a dream needs the package 'no_such_package'"):
        require("no_such_package.part", "a dream")


def test_a_package_that_lacks_its_own_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import absent_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_dependency") as caught:
        require("half_installed", "x")
    assert not isinstance(caught.value, MissingExtraError)
