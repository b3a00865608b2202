"""Signatures as schemas: which YAML values fit which hints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import pytest
import torch

from mmunify.signature import argument_faults, fits, parameters, takes_anything, type_name


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int), (1, float), (0.5, float), ("x", str), (True, bool), (None, None), (None, int | None),
        (3, Union[int, None]),  # noqa: UP007
       
        ([1, 2], list[int]), ([1, 2], tuple[int, int]), ([1, 2, 3], tuple[int, ...]), (["a"], Sequence[str]),
        ({"a": 1}, dict[str, int]), ({"a": 1}, Mapping), ("mean", Literal["mean", "sum"]), ("x", Path), (object(), Any),
        (["a"], set[str]), (["a"], frozenset), ("x", "ForwardReference"), ({}, dict),
    ],
)  # fmt: skip
def test_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1", int), (1.0, int), (True, int), (True, float), ("0.5", float), (1, str), (1, bool), (0, None),
        ("x", int | None),
        ([1, "b"], list[int]), ([1], tuple[int, int]), ("ab", Sequence[str]), ("ab", list),
        ({"a": "b"}, dict[str, int]),
        ([1], Mapping), ("max", Literal["mean", "sum"]), (1, Literal[True]), ({1: 2}, dict[str, int]),
        (None, list[int]),
    ],
)  # fmt: skip
def test_does_not_fit(value, hint):
    assert not fits(value, hint)


def test_type_names_are_readable():
    assert type_name(int) == "int"
    assert type_name(int | None) == "int or null"
    assert type_name(Literal["mean", "sum"]) == "one of 'mean', 'sum'"
    assert type_name(dict[str, Any]) == "dict[str, Any]"


class Part:
    def __init__(self, in_dim: int, num_queries: int = 4, *args: int, flag: bool = False) -> None: ...


def anything(size: "int" = 1, **more: int) -> None: ...


def test_parameters_leave_variadic_ones_out_and_evaluate_strings():
    assert list(parameters(Part)) == ["in_dim", "num_queries", "flag"]
    assert parameters(anything)["size"].annotation is int
    assert takes_anything(anything)
    assert not takes_anything(Part)


def test_all_faults_of_the_arguments_at_once():
    faults = [str(fault) for fault in argument_faults(Part, {"num_querys": 3, "flag": True}, "adapter", ())]
    assert faults == [
        "adapter.num_querys: Part takes no num_querys; did you mean num_queries? It takes in_dim, num_queries, flag",
        "adapter.in_dim: required by Part and not given",
    ]


def test_the_composer_supplies_arguments_and_double_stars_take_the_rest():
    assert argument_faults(Part, {}, "adapter", ("in_dim",)) == []
    assert argument_faults(anything, {"whatever": 1}, "x", ()) == []


def test_a_module_without_a_constructor_takes_nothing():
    class Silent(torch.nn.Module):
        pass

    assert not takes_anything(Silent)
    assert [fault.path for fault in argument_faults(Silent, {"size": 1}, "x", ())] == ["x.size"]


def test_an_annotation_for_type_checkers_alone_is_no_obstacle():
    def part(image: "OnlyForTypeCheckers", size: int = 1) -> None: ...  # noqa: F821

    assert list(parameters(part)) == ["image", "size"]
