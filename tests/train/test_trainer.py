import pytest
from lightning.pytorch.loggers import CSVLogger

from mmunify.errors import MissingExtraError, RecipeError
from mmunify.train.fsdp2 import Fsdp2Strategy
from mmunify.train.layers import LayerOptions
from mmunify.train.sharding import Sharding
from mmunify.train.trainer import layer_options, make_loggers, make_trainer, sharding


def make(folder, **options):
    return make_trainer({"accelerator": "cpu", **options}, steps=7, callbacks=[], loggers=[], folder=folder)


def test_options_reach_lightning(tmp_path):
    trainer = make(tmp_path, precision="bf16-mixed", log_every_n_steps=5)
    assert (trainer.max_steps, trainer.precision, trainer.log_every_n_steps) == (7, "bf16-mixed", 5)


def test_options_of_stages_and_unknown_ones_are_refused(tmp_path):
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, max_epochs=3, gradient_clip_val=1.0)
    assert [fault.path for fault in caught.value.faults] == ["trainer.max_epochs", "trainer.gradient_clip_val"]
    assert "use stages.*.clip" in str(caught.value)
    with pytest.raises(RecipeError, match="trainer: .*presicion"):
        make(tmp_path, presicion="32")


def test_csv_is_always_logged_and_never_overwritten(tmp_path):
    first = make_loggers(tmp_path, "adapt")[0]
    assert isinstance(first, CSVLogger) and first.log_dir == str(tmp_path / "logs" / "adapt")
    first.log_metrics({"loss": 1.0}, step=0)
    first.save()
    assert make_loggers(tmp_path, "adapt")[0].log_dir == str(tmp_path / "logs" / "adapt-2")


def test_loggers_by_name(tmp_path, monkeypatch):
    assert make_loggers(tmp_path, "adapt", []) == []
    with pytest.raises(RecipeError, match="trainer.loggers: .*csw.*csv, tensorboard, wandb"):
        make_loggers(tmp_path, "adapt", ["csw"])
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="logger wandb needs the package 'wandb'"):
        make_loggers(tmp_path, "adapt", ["wandb"])


def test_fsdp2_by_name_or_with_fields(tmp_path):
    assert sharding("ddp") is None and sharding(None) is None and sharding("fsdp2") == Sharding()
    node = {"name": "fsdp2", "meta": True, "wrap": ["detokenizers.*.blocks.*"]}
    trainer = make(tmp_path, strategy=node, devices=2)
    assert isinstance(trainer.strategy, Fsdp2Strategy) and trainer.world_size == 2
    assert trainer.strategy.sharding == Sharding(wrap=("detokenizers.*.blocks.*",), meta=True)
    with pytest.raises(RecipeError, match="trainer.strategy: fsdp2 takes wrap, meta, cpu_offload; got mata"):
        make(tmp_path, strategy={"name": "fsdp2", "mata": True})
    with pytest.raises(RecipeError, match="trainer.strategy.name"):
        make(tmp_path, strategy={"name": "fsdp3"})


def test_a_strategy_that_the_machine_cannot_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.accelerators.cuda.num_cuda_devices", lambda: 0)
    for wrong in ({"accelerator": "cuda", "devices": 2}, {"strategy": "dpp"}, {"strategy": "fsdp2", "precision": "64"}):
        with pytest.raises(RecipeError, match="trainer: this machine can't do it: "):
            make(tmp_path, **wrong)
    monkeypatch.setitem(__import__("sys").modules, "deepspeed", None)
    with pytest.raises(MissingExtraError, match="strategy deepspeed_stage_2 needs the package 'deepspeed'"):
        make(tmp_path, strategy="deepspeed_stage_2")


def test_what_is_done_with_layers():
    assert layer_options({}) == LayerOptions()
    assert layer_options({"recompute": True, "compile": True}) == LayerOptions(recompute=True, compile="inductor")
    assert layer_options({"compile": "eager"}) == LayerOptions(compile="eager")
    with pytest.raises(RecipeError) as caught:
        layer_options({"recompute": "yes", "compile": "inducktor"})
    assert [fault.path for fault in caught.value.faults] == ["trainer.recompute", "trainer.compile"]
