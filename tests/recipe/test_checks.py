"""Faults of nodes, stages, experts, tokens, paths and the trainer."""

import inspect

from mmunify.recipe import checks
from mmunify.recipe.fields import Cache, ModelNodes, RecipeFields, Stage, Tokens
from tests.conftest import TINY_CLIP

BACKBONE = {"name": "huggingface", "path": "some/hub-id"}
CLIP = {"name": "clip", "config": TINY_CLIP}


def texts(faults):
    return [str(fault).partition(" Known")[0] for fault in faults]


def test_a_model_without_parts():
    assert texts(checks.model_faults(ModelNodes())) == [
        "model: has no parts; give it a backbone, or an encoder and a detokenizer"
    ]


def test_nodes_of_every_group_are_checked_without_being_built():
    model = ModelNodes(
        encoders={"image": {**CLIP, "laier": -2}},
        adapters={"image": [{"name": "linear"}, {"name": "mlp", "depth": "x"}]},
        backbone={"name": "hugingface"},
        tuners=[{"name": "lora", "rnak": 3}],
        heads={"text": {"name": "text", "chunk": 0.5}},
        detokenizers={"image": {"name": "pixel_decoder", "from": "encoders.image", "wrong": 1}},
    )
    paths = [fault.path for fault in checks.model_faults(model)]
    for wanted in (
        "model.encoders.image.laier",
        "model.adapters.image.1.depth",
        "model.backbone.name",
        "model.tuners.0.rnak",
        "model.heads.text.chunk",
        "model.detokenizers.image.wrong",
    ):
        assert wanted in paths


def test_a_shared_node_needs_no_name():
    model = ModelNodes(encoders={"image": CLIP, "video": {"share": "image"}}, backbone=BACKBONE)
    model.adapters = {"image": {"name": "mlp"}, "video": {"name": "mlp"}}
    assert checks.model_faults(model) == []


def test_a_head_that_learns_features_needs_an_encoder():
    assert "model.heads.image.target_dim: required by QueryHead and not given" in texts(
        checks.model_faults(ModelNodes(backbone=BACKBONE, heads={"image": {"name": "queries"}}))
    )


def test_weights_belong_to_heads_and_detokenizers():
    model = ModelNodes(heads={"text": {}, "image": {}}, detokenizers={"image": {}})
    assert checks.weight_faults({"text": 1, "image/mse": 2}, model, "w") == []
    assert checks.weight_faults({"detokenizers.image": 5, "detokenizers.image/l1": 5}, model, "w") == []
    assert texts(checks.weight_faults({"txet/ce": 1}, model, "w")) == [
        "w.txet/ce: no head or detokenizer named 'txet'; did you mean 'text'?"
    ]


def test_stages():
    data = [{"name": "digit_world"}]
    stages = [
        Stage(name="a", steps=1, learns=["*"], data=data),
        Stage(
            name="a",
            steps=1,
            learns=["*"],
            data=[{"name": "digit_world", "splti": "x", "weight": 0, "batch_size": 1.5}],
        ),
        Stage(name="b", steps=1, data=[]),
        Stage(name="c", steps=1, learns=["*"], data=[{"name": "digit_wrld"}, {"weight": 1}]),
    ]
    found = texts(checks.stage_faults(stages))
    assert found[0] == "stages.1.name: 'a' is already the name of stages.0; choose another"
    assert found[1].startswith(
        "stages.1.data.0.splti: DigitWorld takes no splti; did you mean split? It takes split, tasks"
    )
    assert found[2:4] == [
        "stages.1.data.0.weight: must be a number above 0, got 0",
        "stages.1.data.0.batch_size: must be a whole number above 0, got 1.5",
    ]
    assert found[4].startswith("stages.2.learns: is empty, so nothing would learn")
    assert found[5].startswith("stages.2.data: is empty; give at least one data set, one of ['digit")
    assert found[6] == "stages.3.data.0.name: no dataset named 'digit_wrld'; did you mean 'digit_world'?"
    assert found[7].startswith("stages.3.data.1: needs a name")


def test_stages_have_one_length_and_weights_that_make_sense():
    stage = lambda **options: Stage(**{"name": "a", "learns": ["*"], "data": [{"name": "digit_world"}], **options})  # noqa: E731
    assert checks.stage_faults([stage(epochs=0.5), stage(name="b", tokens=1000)]) == []
    found = texts(checks.stage_faults([stage(), stage(name="b", steps=2, tokens=9)]))
    assert found == [
        "stages.0.steps: give exactly one of steps, epochs, tokens; got none",
        "stages.1.tokens: give exactly one of steps, epochs, tokens; got steps=2 and tokens=9",
    ]
    for weight in (-1, float("inf"), float("nan"), "2"):
        wrong = stage(steps=1, data=[{"name": "digit_world", "weight": weight}])
        assert texts(checks.stage_faults([wrong])) == [
            f"stages.0.data.0.weight: must be a number above 0, got {weight!r}"
        ]
    sized = [{"name": "digit_world", "batch_size": 4}]
    assert checks.stage_faults([stage(steps=1, mix="task", data=sized)]) == []
    assert "needs mix: source or task" in texts(checks.stage_faults([stage(steps=1, data=sized)]))[0]


def test_rows_need_a_backbone():
    stage = Stage(name="a", tokens=10, packing=True, batch_tokens=64)
    assert checks.row_faults(stage, ModelNodes(backbone={}), "stages.0") == []
    found = [fault.path for fault in checks.row_faults(stage, ModelNodes(), "stages.0")]
    assert found == ["stages.0.packing", "stages.0.batch_tokens", "stages.0.tokens"]


def test_experts_answer_their_task():
    assert checks.expert_faults({"segment": {"name": "region_segmentation"}}) == []
    wrong = checks.expert_faults({"edit": {"name": "region_segmentation"}, "remove": {"name": "inpaint_removl"}})
    assert texts(wrong) == [
        "experts.edit.name: expert 'region_segmentation' answers segment, not 'edit'",
        "experts.remove.name: no expert named 'inpaint_removl'; did you mean 'inpaint_removal'?",
    ]


def test_tasks_without_an_expert_are_notes():
    recipe = RecipeFields(tokens=Tokens(tasks=["edit", "segment", "remove"]), experts={"segmnt": {}, "edit": {}})
    assert checks.expert_notes(recipe) == [
        "tokens.tasks: no expert answers segment, remove",
        "experts.segmnt: tokens.tasks has no 'segmnt'; did you mean 'segment'?",
    ]
    assert checks.expert_notes(RecipeFields(tokens=Tokens(tasks=["edit"]))) == []


def test_tokens_and_chat():
    recipe = RecipeFields(tokens=Tokens(tasks=["segment", "segment"]), chat="vicunya")
    found = texts(checks.token_faults(recipe, ("image",)))
    assert found[0] == "chat: no chat template named 'vicunya'; did you mean 'vicuna'?"
    assert found[1].startswith("tokens: the tag <segment> is taken twice")
    assert checks.token_faults(RecipeFields(tokens=Tokens(tasks=["edit"])), ("image",)) == []


def test_local_paths_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    node = {"name": "x", "path": "./there", "inner": {"path": "./gone"}, "files": ["assets:no/such"], "opens": "./text"}
    assert [str(fault) for fault in checks.path_faults(node, "model.x")] == [
        f"model.x.inner.path: no file or folder './gone' (looked at {tmp_path / 'gone'})",
        f"model.x.files.0: no file or folder 'assets:no/such' (looked at {checks.resolve_path('assets:no/such')})",
    ]
    assert list(checks.path_faults({"path": "openai/clip"}, "x")) == []


def test_trainer_arguments_are_those_of_lightning():
    from lightning.pytorch import Trainer

    assert checks.trainer_arguments() == list(inspect.signature(Trainer).parameters)


def test_unknown_trainer_keys():
    assert checks.trainer_faults({"devices": 2, "strategy": "ddp"}) == []
    assert [str(fault) for fault in checks.trainer_faults({"devcies": 2})] == [
        "trainer.devcies: lightning.Trainer takes no devcies; did you mean devices?"
    ]


def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    assert checks.cache_faults(Cache()) == checks.cache_faults(Cache(path=str(tmp_path / "new/deep"))) == []
    (tmp_path / "file").touch()
    (fault,) = checks.cache_faults(Cache(path=str(tmp_path / "file/cache")))
    assert fault.path == "cache.path" and f"{tmp_path / 'file'} is no folder; choose another" in fault.message
    monkeypatch.setattr("os.access", lambda *_: False)
    (fault,) = checks.cache_faults(Cache(path=str(tmp_path)))
    assert "may not be written" in fault.message


def test_an_encoder_that_reads_another_is_told_its_width():
    region = {"name": "region", "dim": 8}
    adapters = {"image": {"name": "linear"}, "region": {"name": "linear"}}
    told = ModelNodes(
        encoders={"region": {**region, "from": "image"}, "image": CLIP}, adapters=adapters, backbone=BACKBONE
    )
    assert checks.model_faults(told) == []
    alone = ModelNodes(encoders={"region": region, "image": CLIP}, adapters=adapters, backbone=BACKBONE)
    assert [fault.path for fault in checks.model_faults(alone)] == ["model.encoders.region.in_dim"]
