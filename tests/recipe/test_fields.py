"""The typed head: every fault with its path, defaults where something is wrong."""

from omegaconf import OmegaConf

from mmunify.recipe.fields import Optim, RecipeFields, Stage, typed

STAGE = {"name": "a", "learns": ["*"], "steps": 1}


def messages(tree, cls=RecipeFields):
    return [str(fault) for fault in typed(cls, tree)[1]]


def test_a_right_tree_has_no_faults_and_keeps_its_values():
    clean, faults = typed(RecipeFields, {"seed": 4, "stages": [{**STAGE, "optim": {"lr": 1}}]})
    assert faults == []
    assert clean == {
        "seed": 4,
        "stages": [{**STAGE, "optim": {"lr": 1}}],
        "model": {},
        "tokens": {},
        "evaluate": {},
    } or (clean["seed"] == 4 and clean["stages"][0]["optim"] == {"lr": 1})


def test_mistyped_keys_at_every_depth():
    found = messages({"sed": 1, "model": {"encoder": {}}, "stages": [{**STAGE, "stpes": 1, "optim": {"shedule": "x"}}]})
    assert [text.partition(" Known")[0] for text in found] == [
        "sed: no key 'sed'; did you mean 'seed'?",
        "model.encoder: no key 'encoder'; did you mean 'encoders'?",
        "stages.0.stpes: no key 'stpes'; did you mean 'steps'?",
        "stages.0.optim.shedule: no key 'shedule'; did you mean 'schedule'?",
    ]


def test_wrong_types_say_what_is_wanted():
    assert messages({"seed": "x", "model": [], "tokens": {"tasks": "segment"}, "chat": 3}) == [
        "seed: wants int, got 'x'",
        "chat: wants str, got 3",
        "model: wants keys encoders, adapters, backbone, tuners, heads, detokenizers, weights; got []",
        "tokens.tasks: wants list[str], got 'segment'",
    ]


def test_required_keys_and_ranges():
    assert messages({"stages": [{"learns": [], "batch_size": 0}, 7]}) == [
        "stages.0.name: required and not given; wants str",
        "stages.0.batch_size: must be above 0, got 0",
        f"stages.1: wants keys {', '.join(Stage.__dataclass_fields__)}; got 7",
    ]


def test_rates_and_choices():
    wrong = {"lr": 0, "weight_decay": -0.1, "schedule": "cosin", "floor": float("nan"), "groups": [{"lr": -1}]}
    assert messages(wrong, Optim) == [
        "lr: must be above 0, got 0",
        "weight_decay: must be at least 0, got -0.1",
        "schedule: no choice 'cosin'; did you mean 'cosine'? Known: cosine, linear, constant",
        "floor: must be at least 0, got nan",
        "groups.0.match: required and not given; wants str",
        "groups.0.lr: must be above 0, got -1",
    ]


def test_null_is_the_default():
    assert typed(Optim, {"lr": None, "floor": None}) == ({}, [])


def test_what_is_wrong_takes_its_default_so_that_a_recipe_is_still_made():
    clean, faults = typed(RecipeFields, {"seed": "x", "stages": [{"steps": "many"}]})
    assert len(faults) == 3
    head = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RecipeFields), clean))
    assert head.seed == 0
    assert (head.stages[0].name, head.stages[0].steps) == ("", 0)


def test_the_classes_are_omegaconf_schemas():
    head = OmegaConf.to_object(OmegaConf.structured(RecipeFields(stages=[Stage(name="a", steps=2)])))
    assert isinstance(head, RecipeFields)
    assert head.stages[0].optim == Optim()


def test_the_last_glob_decides_what_learns():
    stage = Stage(name="a", steps=1, learns=["adapters.*", "backbone.*", "!*.low_rank.*", "*.gate.*"])
    assert stage.selects("adapters.image.0.weight")
    assert not stage.selects("backbone.mlp.low_rank.a")
    assert stage.selects("backbone.mlp.low_rank.gate.weight")
    assert not stage.selects("encoders.image.weight")
