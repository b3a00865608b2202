import pytest

from mmunify.commands.preflight import preflight
from mmunify.errors import RecipeError
from mmunify.recipe import Recipe
from mmunify.train.stages import train
from mmunify.train.strategies import ZERO, strategy_faults, zero_stage
from tests.train.small import small_recipe


@pytest.fixture
def recipe(llama_folder):
    """recipe(strategy, **changes of its second stage)."""

    def make(strategy, **changes) -> Recipe:
        tree = small_recipe(llama_folder).to_dict()
        tree["stages"][1] |= changes
        return Recipe.from_dict({**tree, "trainer": {"accelerator": "cpu", "strategy": strategy}})

    return make


def told(recipe) -> dict[str, str]:
    return {fault.path: fault.message for fault in strategy_faults(recipe)}


def test_what_is_supported_has_no_faults(recipe):
    for strategy in ("auto", "ddp", "fsdp2", {"name": "fsdp2", "meta": True}, *ZERO):
        assert told(recipe(strategy, precision="bf16-mixed", ema=0.9, clip=1.0, accumulate=2)) == {}
    assert told(recipe("ddp", optim={"name": "adamw_8bit"}, gradient_cosine=3, precision="16-mixed")) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepspeed_stage_2_offload", "is not supported; {name: fsdp2, cpu_offload: true} splits and keeps"),
        ("deepspeed_stage_3_offload_nvme", "is not supported; {name: fsdp2, cpu_offload: true} splits"),
        ("deepspeed_stage_22", "no strategy named 'deepspeed_stage_22'; did you mean 'deepspeed_stage_2'?"),
    ],
)
def test_stages_of_zero_that_are_refused_by_name(recipe, name, words):
    message = told(recipe(name))["trainer.strategy"]
    assert words in message and ", ".join(ZERO) in message
    with pytest.raises(RecipeError, match="trainer.strategy: "):
        zero_stage(name)


def test_stages_of_zero():
    assert [zero_stage(f"deepspeed_stage_{i}") for i in (1, 2, 3)] == [1, 2, 3] and zero_stage("deepspeed") == 2


def test_what_zero_cannot_do_is_told_with_its_place(recipe):
    asked = {"gradient_cosine": 10, "precision": "16-mixed", "optim": {"name": "adamw_8bit"}}
    found = told(recipe("deepspeed_stage_2", **asked))
    assert set(found) == {"stages.1.gradient_cosine", "stages.1.precision", "stages.1.optim.name"}
    assert "set it to 0, or use ddp or fsdp2" in found["stages.1.gradient_cosine"]
    assert "takes 32, 32-true, bf16, bf16-mixed; got '16-mixed'" in found["stages.1.precision"]
    assert "adamw_8bit can't step tensors that deepspeed splits; use adamw" in found["stages.1.optim.name"]
    asked = recipe("deepspeed_stage_2")
    asked.trainer["precision"] = "bf16-true"
    assert [fault.path for fault in strategy_faults(asked)] == ["trainer.precision"]


def test_eight_bits_and_fsdp2(recipe):
    assert list(told(recipe({"name": "fsdp2"}, optim={"name": "adamw_8bit"}))) == ["stages.1.optim.name"]


def test_check_and_train_refuse_before_anything_is_built(recipe, tmp_path):
    asked = recipe("deepspeed_stage_3_offload", gradient_cosine=10)
    paths = ["trainer.strategy", "stages.1.gradient_cosine"]
    assert [fault.path for fault in preflight(asked, 0, dry_run=True)["faults"]] == paths
    with pytest.raises(RecipeError) as caught:
        train(asked, tmp_path / "run", progress=False)
    assert [fault.path for fault in caught.value.faults] == paths
    assert not (tmp_path / "run").exists()
