"""Merging: children over bases, overrides over files, parts that change their name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmunify.errors import UserError
from mmunify.parts import Encoder
from mmunify.recipe.merging import Merger, dotted, override_tree, registry_at, value_at, without_deleted
from mmunify.registry import ADAPTERS, BACKBONES, DATASETS, ENCODERS, EXPERTS, TUNERS

TREES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


class Old:
    def __init__(self, depth: int = 1, width: int = 2, secret: int = 3) -> None: ...


class New:
    def __init__(self, depth: int = 1, num_queries: int = 4) -> None: ...


class Holder:
    def __init__(self, inner: Encoder | None = None, many: list[Encoder] | None = None) -> None: ...


def merge(old, *changes):
    merger = Merger()
    for change in changes:
        old = merger.merge(old, change)
    return old, merger


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("seed=3", {"seed": 3}),
        ("a.b.c=x", {"a": {"b": {"c": "x"}}}),
        ("a=1e-4", {"a": 1e-4}),
        ("a=null", {"a": None}),
        ("a=''", {"a": ""}),
        ("a=true", {"a": True}),
        ("a=[adapters.*, '!x']", {"a": ["adapters.*", "!x"]}),
        ("a={name: mlp, depth: 2}", {"a": {"name": "mlp", "depth": 2}}),
        ("a=x=y", {"a": "x=y"}),
        ("stages.1.steps=10", {"stages": {"1": {"steps": 10}}}),
    ],
)
def test_overrides_are_yaml(text, tree):
    assert override_tree(text) == tree


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=1", "a=", "a= "])
def test_malformed_overrides_are_explained(text):
    with pytest.raises(UserError, match="write key=value, as in stages.adapt.steps=10"):
        override_tree(text)


@pytest.mark.parametrize("text", ["a=b: c: d", "a=[1", "a=*x"])
def test_values_that_are_no_yaml_are_explained(text):
    with pytest.raises(UserError, match="the value is not YAML"):
        override_tree(text)


@given(TREES, TREES)
def test_merging_is_idempotent_and_changes_no_argument(old, new):
    before = (repr(old), repr(new))
    merged, merger = merge(old, new)
    assert merge(merged, new)[0] == merged
    assert (repr(old), repr(new)) == before
    assert merger.faults == []


@given(TREES)
def test_an_empty_change_changes_nothing(tree):
    assert merge({"x": tree}, {})[0] == {"x": tree}


def test_mappings_merge_and_lists_are_replaced():
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3], "d": 4}})[0] == {"a": {"b": 1, "c": [3], "d": 4}}


def test_imports_add_up():
    assert merge({"imports": ["a", "b"]}, {"imports": ["b", "c"]})[0] == {"imports": ["a", "b", "c"]}


def test_elements_of_a_list_by_index_and_by_name():
    stages = {"stages": [{"name": "one", "steps": 1}, {"name": "two", "steps": 2}]}
    changed, _ = merge(stages, {"stages": {"two": {"steps": 20}, "0": {"steps": 10}}})
    assert [stage["steps"] for stage in changed["stages"]] == [10, 20]
    assert [stage["steps"] for stage in stages["stages"]] == [1, 2]


def test_elements_that_do_not_exist_are_faults():
    _, merger = merge({"stages": [{"name": "adapt"}]}, {"stages": {"adpat": {"steps": 1}, "4": {"steps": 1}}})
    assert [str(fault) for fault in merger.faults] == [
        "stages.adpat: no element named 'adpat'; did you mean 'adapt'? Known: adapt, 0",
        "stages.4: no element named '4'. Known: adapt, 0",
    ]


def test_null_deletes_nodes_and_elements_but_sets_arguments():
    tree = {
        "out": "x",
        "model": {
            "adapters": {"a": {"name": "mlp", "depth": 2}, "b": {"name": "mlp"}},
            "tuners": [{"name": "lora"}, {}],
        },
        "experts": {"edit": {"name": "x"}},
        "stages": [{"name": "s", "data": [{"name": "d"}, {"name": "e"}]}, {"name": "t"}],
    }
    change = {
        "out": None,
        "model": {"adapters": {"a": {"depth": None}, "b": None, "never": None}, "tuners": {"1": None}},
        "experts": {"edit": None},
        "stages": {"t": None, "s": {"data": {"e": None}}},
    }
    assert without_deleted(merge(tree, change)[0]) == {
        "out": None,
        "model": {"adapters": {"a": {"name": "mlp", "depth": None}}, "tuners": [{"name": "lora"}]},
        "experts": {},
        "stages": [{"name": "s", "data": [{"name": "d"}]}],
    }


# ------------------------------------------------------------------------------------------- another part


@pytest.fixture(autouse=True)
def parts():
    with ADAPTERS.temporary("old", Old), ADAPTERS.temporary("new", New), ENCODERS.temporary("holder", Holder):
        yield


def swapped(*changes, node=None):
    base = {"model": {"adapters": {"image": node or {"name": "old", "depth": 5, "width": 6, "from": "image"}}}}
    tree, merger = merge(base, *({"model": {"adapters": {"image": change}}} for change in changes))
    notes = merger.drop_inherited(tree)
    return tree["model"]["adapters"]["image"], notes


def test_a_new_part_keeps_only_the_arguments_that_it_takes():
    node, notes = swapped({"name": "new"})
    assert node == {"name": "new", "depth": 5, "from": "image"}
    assert notes == ["model.adapters.image: dropped width=6 of the base, which adapter 'new' doesn't take"]


def test_arguments_given_with_the_new_name_are_never_dropped():
    node, notes = swapped({"name": "new", "wdith": 1})
    assert node["wdith"] == 1
    assert len(notes) == 1


def test_arguments_given_after_the_new_name_are_never_dropped():
    node, notes = swapped({"name": "new"}, {"width": 9})
    assert node["width"] == 9
    assert notes == []


def test_changing_the_name_and_back_drops_nothing():
    node, notes = swapped({"name": "new"}, {"name": "old"})
    assert (node["depth"], node["width"], notes) == (5, 6, [])


def test_an_unknown_name_drops_nothing_so_that_the_check_can_speak():
    assert swapped({"name": "nwe"})[0] == {"name": "nwe", "depth": 5, "width": 6, "from": "image"}


def test_a_replaced_list_forgets_what_its_elements_inherited():
    base = {"model": {"tuners": [{"name": "lora", "rank": 1}]}}
    tree, merger = merge(
        base, {"model": {"tuners": {"0": {"name": "lora_moe"}}}}, {"model": {"tuners": [{"name": "x", "rank": 2}]}}
    )
    assert merger.drop_inherited(tree) == []
    assert tree["model"]["tuners"] == [{"name": "x", "rank": 2}]


def test_data_keeps_what_belongs_to_the_mixture():
    base = {"stages": [{"data": [{"name": "digit_text", "weight": 2, "batch_size": 4, "never_an_argument": 1}]}]}
    tree, merger = merge(base, {"stages": {"0": {"data": {"0": {"name": "digit_world"}}}}})
    merger.drop_inherited(tree)
    assert tree["stages"][0]["data"][0] == {"name": "digit_world", "weight": 2, "batch_size": 4}


def test_names_of_stages_and_recipes_are_no_parts():
    tree, merger = merge(
        {"name": "a", "seed": 1, "stages": [{"name": "s", "steps": 1}]}, {"name": "b", "stages": {"s": {"name": "t"}}}
    )
    assert merger.drop_inherited(tree) == []
    assert tree == {"name": "b", "seed": 1, "stages": [{"name": "t", "steps": 1}]}


# ------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("at", "registry"),
    [
        (("model", "encoders", "image"), ENCODERS),
        (("model", "adapters", "image"), ADAPTERS),
        (("model", "adapters", "image", 0), ADAPTERS),
        (("model", "backbone"), BACKBONES),
        (("model", "tuners", 0), TUNERS),
        (("experts", "edit"), EXPERTS),
        (("stages", 0, "data", 0), DATASETS),
        (("stages", 0, "model", "encoders", "image"), ENCODERS),
        (("model", "encoders", "video", "inner"), ENCODERS),
        (("model", "encoders", "video", "many", 0), ENCODERS),
        (("model", "encoders", "video", "size"), None),
        (("model", "backbone", "config"), None),
        (("stages", 0), None),
        ((), None),
    ],
)
def test_registries_by_place(at, registry):
    tree = {
        "model": {
            "encoders": {"video": {"name": "holder", "inner": {}, "many": [{}]}},
            "backbone": {"name": "huggingface"},
        }
    }
    assert registry_at(tree, at) is registry


def test_values_by_place():
    assert value_at({"a": [{"b": 1}]}, ("a", 0, "b")) == 1
    assert value_at({"a": [{"b": 1}]}, ("a", 3, "b")) is None
    assert dotted(("stages", 1, "steps")) == "stages.1.steps"
