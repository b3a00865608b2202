"""Registries: names from four sources, duplicates refused, nodes checked recursively and built."""

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint

import pytest

from mmunify import registry as registry_module
from mmunify.errors import MissingExtraError, RecipeError, RegistryError
from mmunify.parts import Adapter, Encoder
from mmunify.registry import ADAPTERS, ALL, ENCODERS, TUNERS, Registry, nested


class MLPAdapter:
    def __init__(self, in_dim: int, out_dim: int, depth: int = 2) -> None:
        self.dims, self.depth = (in_dim, out_dim), depth


class QFormerAdapter:
    def __init__(self, in_dim: int, out_dim: int, num_queries: int = 32, depth: int = 2) -> None:
        self.num_queries = num_queries


class Frames:
    """Takes nested nodes in three ways."""

    def __init__(
        self,
        encoder: Encoder | None = None,
        several: Sequence[Encoder] = (),
        named: Mapping[str, Adapter] = {},
        size: int = 1,
    ) -> None:
        self.encoder, self.several, self.named = encoder, several, named


class Leaf:
    def __init__(self, width: int, out_dim: int = 0) -> None:
        self.width, self.out_dim = width, out_dim


@pytest.fixture
def adapters():
    registry = Registry("adapter", "mmunify.no_such_home", "mmunify.test_adapters")
    registry.register("mlp")(MLPAdapter)
    registry.register("qformer")(QFormerAdapter)
    return registry


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A package whose files are parts."""
    folder = tmp_path / "parts_home"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "_helper.py").touch()
    (folder / "good.py").write_text("from parts_registry import R\n@R.register('good')\nclass Good:\n    pass\n")
    (folder / "lazy.py").write_text("raise RuntimeError('imported')")
    (folder / "needy.py").write_text("import av_is_absent")
    (folder / "silent.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("thing", "parts_home", "mmunify.test_things")
    module = type(sys)("parts_registry")
    module.R = registry
    monkeypatch.setitem(sys.modules, "parts_registry", module)
    yield registry
    for name in [name for name in sys.modules if name.startswith("parts_home")]:
        del sys.modules[name]


def publish(monkeypatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name=name, value=value, group="g") for name, value in points]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: found)


# ------------------------------------------------------------------------------------------- messages


def test_faults_of_a_node_in_the_agreed_words(adapters):
    def faults(node):
        return [str(fault) for fault in adapters.check(node, "adapter", ("in_dim", "out_dim"))]

    assert faults({"name": "qfromer"}) == [
        "adapter.name: no adapter named 'qfromer'; did you mean 'qformer'? Known: mlp, qformer"
    ]
    assert faults({"name": "qformer", "num_querys": 3}) == [
        "adapter.num_querys: QFormerAdapter takes no num_querys; did you mean num_queries? "
        "It takes in_dim, out_dim, num_queries, depth"
    ]
    assert faults({"depth": 3}) == ["adapter: needs a name, one of ['mlp', 'qformer']; got {'depth': 3}"]
    assert faults({"name": "mlp", "depth": "two"}) == ["adapter.depth: MLPAdapter wants int, got 'two'"]
    assert [str(f) for f in adapters.check({"name": "mlp", "out_dim": 3}, "adapter")] == [
        "adapter.in_dim: required by MLPAdapter and not given"
    ]


def test_all_faults_of_a_node_come_together(adapters):
    faults = adapters.check({"name": "mlp", "depht": 1, "depth": True}, "a")
    assert [fault.path for fault in faults] == ["a.depht", "a.depth", "a.in_dim", "a.out_dim"]


# ------------------------------------------------------------------------------------------- names


def test_the_same_object_twice_is_fine_another_one_names_both_owners(adapters):
    assert adapters.register("mlp")(MLPAdapter) is MLPAdapter
    with pytest.raises(RegistryError, match=r"'mlp' of .*QFormerAdapter is already registered by .*MLPAdapter"):
        adapters.register("mlp")(QFormerAdapter)
    assert adapters.get("mlp") is MLPAdapter


def test_shipped_parts_are_found_by_file_and_imported_on_demand(home):
    assert home.names() == ["good", "lazy", "needy", "silent"]
    assert home.file("good").name == "good.py"
    assert home.get("good").__name__ == "Good"
    assert "parts_home.lazy" not in sys.modules


def test_a_shipped_name_is_taken_before_its_file_is_imported(home):
    with pytest.raises(RegistryError, match=r"MLPAdapter is already registered by parts_home\.good"):
        home.register("good")(MLPAdapter)


def test_a_part_without_its_package_says_how_to_get_it(home):
    with pytest.raises(
        MissingExtraError, match="thing 'needy' needs the package 'av_is_absent': pip install av-is-absent"
    ):
        home.get("needy")
    assert "pip install" in str(home.check({"name": "needy"}, "x")[0])


def test_a_file_that_registers_nothing_is_named(home):
    with pytest.raises(RegistryError, match=r"silent\.py registers no thing named 'silent'"):
        home.get("silent")


def test_unknown_names_list_the_known_ones(home):
    with pytest.raises(
        RegistryError, match="no thing named 'god'; did you mean 'good'\\? Known: good, lazy, needy, silent"
    ):
        home.get("god")


def test_groups_of_entry_points_are_those_of_the_documentation():
    groups = ["encoders", "adapters", "backbones", "tuners", "heads", "detokenizers", "experts", "datasets", "metrics"]
    assert [registry.group for registry in ALL] == [f"mmunify.{name}" for name in groups]


def test_an_entry_point_is_loaded_on_first_look_up(home, monkeypatch):
    publish(monkeypatch, ("fraction", "fractions:Fraction"))
    assert "fraction" in home.names()
    assert home.get("fraction").__name__ == "Fraction"


def test_a_broken_plugin_breaks_no_other(home, monkeypatch):
    publish(monkeypatch, ("broken", "no_such_module_at_all:X"), ("fraction", "fractions:Fraction"))
    assert home.names() == ["broken", "fraction", "good", "lazy", "needy", "silent"]
    assert home.get("fraction")
    with pytest.raises(
        RegistryError, match="thing 'broken' of plug-in no_such_module_at_all:X cannot be loaded: Module"
    ):
        home.get("broken")


def test_a_plugin_that_shadows_a_shipped_part_is_ignored_and_reported(home, monkeypatch):
    publish(monkeypatch, ("good", "fractions:Fraction"))
    with pytest.warns(UserWarning, match=r"'good' of plug-in fractions:Fraction is ignored: parts_home\.good owns"):
        assert home.get("good").__name__ == "Good"


def test_two_plugins_under_one_name_are_refused(home, monkeypatch):
    publish(monkeypatch, ("number", "fractions:Fraction"), ("number", "decimal:Decimal"))
    with pytest.raises(RegistryError, match=r"Decimal is already registered by fractions\.Fraction"):
        home.get("number")


def test_a_users_module_cannot_take_a_plugins_name(home, monkeypatch):
    publish(monkeypatch, ("number", "fractions:Fraction"))
    with pytest.raises(RegistryError, match=r"MLPAdapter is already registered by fractions:Fraction"):
        home.register("number")(MLPAdapter)


def test_modules_of_the_environment_are_imported_once(tmp_path, monkeypatch, adapters):
    (tmp_path / "env_plugin.py").write_text("import sys\nsys.env_plugin_runs = getattr(sys, 'env_plugin_runs', 0) + 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MMUNIFY_PLUGINS", "no_such_plugin, env_plugin")
    with pytest.warns(UserWarning, match="MMUNIFY_PLUGINS: 'no_such_plugin' cannot be imported"):
        adapters.names()
    adapters.names()
    assert sys.env_plugin_runs == 1
    del sys.env_plugin_runs, sys.modules["env_plugin"]


def test_temporary_names_vanish(adapters):
    with adapters.temporary("x", Leaf):
        assert adapters.get("x") is Leaf
    assert "x" not in adapters.names()


# ------------------------------------------------------------------------------------------- nodes


def test_build_fills_in_what_the_signature_asks_for(adapters):
    built = adapters.build({"name": "mlp", "depth": 3}, in_dim=4, out_dim=5, target_dim=6)
    assert (built.dims, built.depth) == ((4, 5), 3)
    assert adapters.build({"name": "mlp", "in_dim": 1}, in_dim=4, out_dim=5).dims == (1, 5)


def test_build_raises_all_faults(adapters):
    with pytest.raises(RecipeError, match=r"2 faults:\n  adapter.depht: .*\n  adapter.in_dim"):
        adapters.build({"name": "mlp", "depht": 1}, out_dim=2)


def test_contracts_in_annotations_are_found():
    assert nested(Encoder) == (ENCODERS, False)
    assert nested(Encoder | None) == (ENCODERS, False)
    assert nested(Sequence[Adapter]) == (ADAPTERS, True)
    assert nested(dict[str, Adapter] | None) == (ADAPTERS, True)
    assert nested(int | None) is None


def test_nested_nodes_are_checked_with_their_path():
    node = {
        "name": "frames",
        "encoder": {"name": "leaf", "widht": 1},
        "several": [{"name": "leaf", "width": 1}, {"name": "leaff"}],
        "named": {"a": {"name": "mlp", "depth": "x"}, "b": 5},
    }
    with ENCODERS.temporary("frames", Frames), ENCODERS.temporary("leaf", Leaf):
        faults = ENCODERS.check(node, "model.encoders.video", ("in_dim", "out_dim"))
    assert [fault.path.removeprefix("model.encoders.video.") for fault in faults] == [
        "encoder.widht", "encoder.width", "named.a.depth", "named.b", "several.1.name",
    ]  # fmt: skip


def test_nested_nodes_are_built_with_the_composers_dims():
    node = {"name": "frames", "encoder": {"name": "leaf", "width": 1}, "several": [{"name": "leaf", "width": 2}]}
    with ENCODERS.temporary("frames", Frames), ENCODERS.temporary("leaf", Leaf):
        built = ENCODERS.build({**node, "named": {"a": {"name": "mlp"}}}, in_dim=8, out_dim=9)
    assert (built.encoder.width, built.encoder.out_dim) == (1, 9)
    assert [leaf.width for leaf in built.several] == [2]
    assert isinstance(built.named["a"], Adapter)


def test_a_nested_part_may_be_built_already():
    part = ADAPTERS.build({"name": "mlp"}, in_dim=2, out_dim=2)
    with ENCODERS.temporary("frames", Frames):
        assert ENCODERS.build({"name": "frames", "named": {"a": part}}).named["a"] is part


@pytest.mark.parametrize("wrong", ["clip", 3, ["x"]])
def test_something_else_where_a_node_belongs_is_a_fault(wrong):
    with ENCODERS.temporary("frames", Frames):
        assert [fault.path for fault in ENCODERS.check({"name": "frames", "encoder": wrong}, "e")] == ["e.encoder"]
        assert ENCODERS.check({"name": "frames", "encoder": None}, "e") == []
        assert (
            ENCODERS.check({"name": "frames", "several": "clip"}, "e")[0].message
            == "Frames wants encoder nodes, got 'clip'"
        )


def test_the_composers_keys_are_no_arguments_of_the_part():
    with ENCODERS.temporary("leaf", Leaf), TUNERS.temporary("leaf", Leaf):
        node = {"name": "leaf", "width": 1, "kind": "image", "from": "image"}
        assert ENCODERS.check(node, "e") == []
        assert ENCODERS.build(node).width == 1
        assert [fault.path for fault in TUNERS.check({**node, "on": "backbone"}, "t")] == ["t.from", "t.kind"]


def test_the_composers_keys_mean_nothing_in_a_nested_node():
    with ENCODERS.temporary("frames", Frames), ENCODERS.temporary("leaf", Leaf):
        node = {"name": "frames", "encoder": {"name": "leaf", "width": 1, "kind": "image"}}
        assert [fault.path for fault in ENCODERS.check(node, "e")] == ["e.encoder.kind"]


def test_every_shipped_part_can_be_looked_up():
    for registry in ALL:
        for name in registry.names():
            assert callable(registry.get(name)), (registry.kind, name)
