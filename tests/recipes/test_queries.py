"""Learnable queries on top of the main recipe's language model: every stage trains, and a picture comes out."""

from mmunify import train
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.infer.assistant import Assistant
from mmunify.recipe import load_recipe
from tests.heads.worlds import generate_along

STAGES = ("one", "two", "draw")


def _quick(stages, *further):
    keys = ("steps=2", "batch_size=2", "num_workers=0", *further)
    return ["trainer.precision=32-true", *(f"stages.{stage}.{key}" for stage in stages for key in keys)]


def test_it_starts_from_the_main_recipe_and_draws(tmp_path, monkeypatch):
    main = load_recipe("tiny/unifiedmllm", [*_quick(("perceive", "adapt"), "mix=sample"), "stages.mix=null"])
    train(main, tmp_path / "main", progress=False)
    quick = _quick(STAGES, "data.1.batch_size=2")
    recipe = load_recipe("tiny/queries", [*quick, f"stages.one.start={tmp_path / 'main'}"])
    assert recipe.check() == [] and recipe.notes == []
    bundle = train(recipe, tmp_path / "queries", progress=False)
    sample = DigitWorld("test", ["generate_image"], num_digits=[1])[0]
    (written,) = generate_along(bundle.model, bundle.processor(), [sample], monkeypatch)
    (features,) = written.predictions["image"]
    assert features.shape == (64, 128)
    monkeypatch.setattr("mmunify.infer.assistant.generate", lambda *args, **options: [written])
    reply = Assistant.load(bundle).reply(sample.turns[0].parts[0].text)
    assert reply.problems == () and reply.artifacts[0].data.shape == (64, 64, 3)


def test_requests_grow_from_one_digit_to_all():
    tree = load_recipe("tiny/queries").to_dict()
    drawn = [stage["data"][0] for stage in tree["stages"]]
    assert [data.get("num_digits") for data in drawn] == [[1], [1, 2], None]
    assert [stage["name"] for stage in tree["stages"]] == list(STAGES)
