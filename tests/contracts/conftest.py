"""Contract tests run over every registered name. A part says how to build a tiny one in its own test file:

def example(folder): return {...}     # arguments of its node beside the widths; files go into `folder`
def example_condition(in_dim): ...    # de-tokenizers: a Condition of two items
def example_values(): ...             # encoders of other media than pictures
def example_context(): ...            # encoders that read another node's features
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from mmunify.registry import Registry

TESTS = Path(__file__).parents[1]


def load_examples(registry: Registry, name: str) -> ModuleType:
    """The test file of a part, as a module."""
    file = TESTS / registry.home.removeprefix("mmunify.").replace(".", "/") / f"test_{name}.py"
    assert file.is_file(), f"{registry.kind} {name!r} has no test file {file.relative_to(TESTS.parent)}"
    spec = importlib.util.spec_from_file_location(f"examples_{registry.kind}_{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert hasattr(module, "example"), f"{file.relative_to(TESTS.parent)} needs `def example(folder)`: see {__file__}"
    return module


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A part is built and run without asking anybody."""

    def refuse(*arguments):
        raise AssertionError(f"a part asked the network for {arguments[1:]}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture
def build_example(tmp_path):
    """build(registry, name, **dims): the tiny part of that name, and the module with its other examples."""

    def build(registry: Registry, name: str, **dims: int) -> tuple[nn.Module, ModuleType]:
        examples = load_examples(registry, name)
        return registry.build({"name": name, **examples.example(tmp_path)}, **dims), examples

    return build
