import pytest
import torch
from torch import nn

from mmunify.errors import RecipeError
from mmunify.train.learns import apply_learns, clean_name, learned_names, named_tensors, part_of, select
from tests.train.worlds import ToyModel


def learning(model, globs):
    chosen = set(select(model, globs))
    return {name for name, parameter in model.named_parameters() if parameter in chosen}


def test_last_match_wins():
    model = ToyModel()
    everything = {name for name, _ in model.named_parameters()}
    assert learning(model, ["*"]) == everything
    assert learning(model, ["*", "!backbone.*", "backbone.2.weight"]) == {
        name for name in everything if not name.startswith("backbone.") or name == "backbone.2.weight"
    }
    assert learning(model, ["backbone.2.weight", "!backbone.*", "adapters.*"]) == {
        "adapters.image.weight",
        "adapters.image.bias",
    }


def test_glob_without_match_names_all_faults_and_the_nearest_names():
    with pytest.raises(RecipeError) as caught:
        select(ToyModel(), ["adapter.*", "backbone.*", "!*.low_rank.*"], "stages.mix.learns")
    assert [fault.path for fault in caught.value.faults] == ["stages.mix.learns.0", "stages.mix.learns.2"]
    assert "'adapter.*' matches no parameter" in str(caught.value) and "adapters.*" in str(caught.value)


@pytest.mark.parametrize("globs", [[], ["backbone.*", "!*"]])
def test_nothing_learns_is_an_error(globs):
    with pytest.raises(RecipeError, match="nothing learns"):
        select(ToyModel(), globs)


def test_tied_parameters_answer_to_all_their_names():
    model = ToyModel()
    model.backbone[2].weight = model.adapters["image"].weight
    assert learning(model, ["backbone.2.weight"]) == {"adapters.image.weight"}
    assert learning(model, ["adapters.*", "!backbone.*"]) == {"adapters.image.bias"}
    rows = {row.part: row for row in apply_learns(model, ["adapters.*"])}
    assert (rows["adapters.image"].trained, rows["backbone"].trained, rows["backbone"].total) == (20, 0, 24)


def test_table_and_flags():
    model = ToyModel()
    rows = {row.part: row for row in apply_learns(model, ["adapters.*"])}
    assert (rows["adapters.image"].trained, rows["adapters.image"].num_tensors) == (20, 2)
    assert (rows["encoders.image"].trained, rows["encoders.image"].frozen) == (0, 28)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "adapters.image.weight",
        "adapters.image.bias",
    ]


def test_frozen_parts_keep_still_and_learning_ones_train():
    model = ToyModel()
    apply_learns(model, ["adapters.*", "backbone.*"])
    modes = {name: module.training for name, module in model.named_modules()}
    assert not any(modes[f"encoders.image.{name}"] for name in ("linear", "norm", "dropout"))
    assert modes["backbone"] and modes["backbone.1"] and modes["adapters.image"]


def test_low_rank_experts_train_inside_a_frozen_backbone():
    model = ToyModel()
    model.backbone[0].low_rank = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5))
    apply_learns(model, ["*.low_rank.*"])
    assert model.backbone[0].low_rank[1].training
    assert not model.backbone[1].training and not model.backbone[0].training


def test_learned_names_hold_parameters_and_moving_statistics():
    model = ToyModel()
    apply_learns(model, ["encoders.*"])
    assert learned_names(model) == {
        *(f"encoders.image.linear.{kind}" for kind in ("weight", "bias")),
        *(f"encoders.image.norm.{kind}" for kind in ("weight", "bias")),
        *(f"encoders.image.norm.{kind}" for kind in ("running_mean", "running_var", "num_batches_tracked")),
    }


def test_names_are_those_before_any_wrapper():
    wrapped = torch.compile(nn.Linear(2, 2))
    assert [clean_name(name) for name, _ in wrapped.named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in named_tensors(wrapped)] == ["weight", "bias"]
    assert part_of("backbone.lm.layers.0.mlp.low_rank.a") == "backbone (low-rank)"
    assert part_of("heads.image.queries") == "heads.image" and part_of("backbone.lm.norm") == "backbone"
