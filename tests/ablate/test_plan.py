"""What an ablation has to do, and what its cells share."""

from dataclasses import replace

import pytest

from mmunify.ablate.plan import plan
from mmunify.errors import UserError
from tests.ablate.arms import recipe_with


def keys(cell):
    return [step.key for step in cell.steps]


def test_a_cell_per_arm_and_seed_seed_by_seed(llama_folder):
    cells = plan(recipe_with(llama_folder, seeds=[4, 9]))
    assert [(cell.arm, cell.seed) for cell in cells] == [("plain", 4), ("wide", 4), ("plain", 9), ("wide", 9)]
    assert cells[1].recipe.model.tuners[0]["rank"] == 4
    assert [stage.name for stage in cells[0].until(0).stages] == ["perceive"]
    assert cells[2].until(1).seed == 9


def test_stages_before_the_first_difference_have_one_key(llama_folder):
    arms = {"plain": {}, "long": {"stages": {"mix": {"steps": 3}}}}
    plain, long = plan(recipe_with(llama_folder, arms=arms, seeds=[0]))
    assert keys(plain)[0] == keys(long)[0]
    assert keys(plain)[1] != keys(long)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"tuners": {0: {"rank": 3}}}},
        {"trainer": {"precision": "bf16-mixed"}},
        {"max_length": 99},
        {"stages": {"perceive": {"optim": {"lr": 0.5}}}},
    ],
)
def test_what_changes_a_stage_changes_its_key_and_those_behind_it(llama_folder, change):
    plain, other = plan(recipe_with(llama_folder, arms={"plain": {}, "other": change}, seeds=[0]))
    assert not set(keys(plain)) & set(keys(other))


def test_what_does_not_change_training_shares_all_of_it_but_not_the_outcome(llama_folder):
    arms = {"plain": {}, "few": {"evaluate": {"num_samples": 7}}, "same": {}}
    plain, few, same = plan(recipe_with(llama_folder, arms=arms, seeds=[0]))
    assert keys(plain) == keys(few) == keys(same)
    assert plain.fingerprint == same.fingerprint != few.fingerprint


def test_seeds_reach_the_stages_from_vary_on(llama_folder):
    recipe = recipe_with(llama_folder, seeds=[4, 9], vary="mix", arms={"plain": {}})
    first, second = plan(replace(recipe, seed=7))
    assert [(step.seed, step.varies) for step in first.steps] == [(7, False), (4, True)]
    assert keys(first)[0] == keys(second)[0] and keys(first)[1] != keys(second)[1]


def test_the_stage_to_compare_with_comes_first_and_once_per_history(llama_folder):
    asked = {"seeds": [4, 9], "vary": "mix", "before": "perceive"}
    late = {"plain": {}, "long": {"stages": {"mix": {"steps": 3}}}}
    shared, *rest = plan(replace(recipe_with(llama_folder, arms=late, **asked), seed=7))
    assert (shared.arm, shared.seed, len(shared.steps)) == ("after perceive", 7, 1)
    assert len(rest) == 4
    apart = [cell.arm for cell in plan(recipe_with(llama_folder, **asked))]
    assert apart[:2] == ["plain, after perceive", "wide, after perceive"]
    every = [(cell.arm, cell.seed) for cell in plan(recipe_with(llama_folder, seeds=[4, 9], before="perceive"))]
    assert every[:3] == [("plain, after perceive", 4), ("wide, after perceive", 4), ("plain, after perceive", 9)]


def test_nothing_to_compare_is_refused(llama_folder):
    with pytest.raises(UserError, match="recipe 'small' has no ablate.arms"):
        plan(recipe_with(llama_folder, arms={}))
    with pytest.raises(UserError, match="ablate.arms.none has no stages"):
        plan(recipe_with(llama_folder, arms={"none": {"stages": {"perceive": None, "mix": None}}}))
