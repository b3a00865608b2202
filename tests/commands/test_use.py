"""`demo`, `run` and `eval`: what they hand on, and what they print."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from mmunify.cli import app
from mmunify.errors import CheckpointError, UserError
from mmunify.evaluate.statistics import Measure
from mmunify.recipe import Evaluation
from mmunify.types import Reply


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def bundle(monkeypatch):
    """A bundle that is not on disk; its attribute `opened` says how it was asked for."""
    found = SimpleNamespace(
        recipe=SimpleNamespace(evaluate=Evaluation(protocols=["routing"], num_samples=7)), opened=[]
    )

    def load(folder, allow_imports=False):
        found.opened.append((str(folder), allow_imports))
        return found

    monkeypatch.setattr("mmunify.checkpoint.load_bundle", load)
    return found


@pytest.fixture
def heard(monkeypatch, bundle):
    """What an assistant was told."""
    told = []

    class Assistant:
        @classmethod
        def load(cls, given):
            assert given is bundle
            return cls()

        def reply(self, prompt, **media):
            told.append((prompt, {kind: file for kind, file in media.items() if file}))
            return Reply(text=f"answer {len(told)}")

    module = ModuleType("mmunify.infer.assistant")
    module.Assistant = Assistant
    monkeypatch.setitem(sys.modules, "mmunify.infer.assistant", module)
    return told


def test_several_prompts_are_several_turns(heard, bundle, tmp_path):
    picture = tmp_path / "scene.png"
    picture.touch()
    done = invoke("run", "runs/x", "What is it?", "Remove it.", "--image", picture, "--allow-imports")
    assert done.exit_code == 0, done.output
    assert heard == [("What is it?", {"image": picture}), ("Remove it.", {})]
    assert bundle.opened == [("runs/x", True)]
    assert done.output.splitlines() == [f"> What is it?  [{picture}]", "answer 1", "> Remove it.", "answer 2"]


def test_a_turn_may_have_media_of_several_kinds(heard, tmp_path):
    clip, call = tmp_path / "clip.mp4", tmp_path / "call.wav"
    clip.touch()
    call.touch()
    done = invoke("run", "runs/x", "What moves, and who calls?", "And now?", "--video", clip, "--audio", call)
    assert done.exit_code == 0, done.output
    assert heard == [("What moves, and who calls?", {"video": clip, "audio": call}), ("And now?", {})]


def test_pictures_that_cannot_be_used(heard, tmp_path):
    picture = tmp_path / "scene.png"
    assert "no file at" in str(invoke("run", "runs/x", "hi", "--image", picture).exception)
    picture.touch()
    done = invoke("run", "runs/x", "hi", "--image", picture, "--image", picture)
    assert isinstance(done.exception, UserError)
    assert "2 --image files for 1 prompts" in str(done.exception)
    assert heard == []


def test_a_missing_bundle(tmp_path):
    done = invoke("run", tmp_path / "gone", "hi")
    assert isinstance(done.exception, CheckpointError)
    assert "gone" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "protocols", "num_samples"),
    [([], ["routing"], 7), (["caption", "--num-samples", "3"], ["caption"], 3)],
)
def test_eval(monkeypatch, bundle, tmp_path, arguments, protocols, num_samples):
    asked = []

    def measure(given, wanted, num_samples):
        asked.append((given, wanted, num_samples))
        return {"routing": {"accuracy": Measure(value=0.5, n=4, low=0.25, high=0.75)}}

    monkeypatch.setattr("mmunify.evaluate.run.evaluate", measure)
    done = invoke("eval", "runs/x", *arguments, "--json", tmp_path / "out/scores.json")
    assert done.exit_code == 0, done.output
    assert asked == [(bundle, protocols, num_samples)]
    assert json.loads((tmp_path / "out/scores.json").read_text()) == {
        "routing": {"accuracy": {"value": 0.5, "n": 4, "low": 0.25, "high": 0.75}}
    }
    assert "routing" in done.output


def test_demo_is_told_its_folder(monkeypatch, tmp_path):
    module, told = ModuleType("mmunify.demo"), []
    module.run_demo = told.append
    monkeypatch.setitem(sys.modules, "mmunify.demo", module)
    assert invoke("demo", "--out", tmp_path).exit_code == 0
    assert told == [tmp_path]
