import pytest
from lightning.pytorch.loggers import CSVLogger

from mmunify.errors import RecipeError
from mmunify.train.trainer import make_loggers, make_trainer


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
