"""A package that is called as a function, whatever is imported first."""

import sys

import pytest

import mmunify
from mmunify.callables import make_callable


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "callable_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "inner.py").write_text("def double(x, times=2): return times * x")
    monkeypatch.syspath_prepend(tmp_path)
    import callable_package

    make_callable("callable_package", "callable_package.inner:double")
    yield callable_package
    for name in [name for name in sys.modules if name.startswith("callable_package")]:
        del sys.modules[name]


def test_the_call_is_that_of_its_function(package):
    assert package(4) == 8
    assert package(4, times=3) == 12


def test_the_package_stays_a_package(package):
    from callable_package.inner import double

    assert package.inner.double is double


def test_train_and_evaluate_are_called_like_functions():
    assert callable(mmunify.train)
    assert callable(mmunify.evaluate)
    assert mmunify.train.entry == "mmunify.train.stages:train"
    assert mmunify.evaluate.entry == "mmunify.evaluate.run:evaluate"
