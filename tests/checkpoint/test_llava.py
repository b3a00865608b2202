import pytest
from transformers import LlavaConfig, LlavaNextConfig

from mmunify.checkpoint.family import NEWLINE
from mmunify.checkpoint.llava import LLAVA, LLAVA_NEXT
from mmunify.composer import compose
from mmunify.errors import CheckpointError
from tests.parity.test_llava import TEXT, TOWER

VISION = {"model_type": "clip_vision_model", **TOWER}


def test_names_of_both():
    assert LLAVA.names.ours("model.vision_tower.embeddings.x") == "encoders.image.model.embeddings.x"
    assert LLAVA.names.ours("model.language_model.norm.weight") == "backbone.lm.model.norm.weight"
    assert LLAVA_NEXT.names.ours("model.vision_tower.embeddings.x") == "encoders.image.encoder.model.embeddings.x"
    assert LLAVA_NEXT.names.theirs("backbone.new_rows.layout") == "model.image_newline"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": [-2, -1]}, r"read at layer \[-2, -1\]"),
        ({"vision_config": {"model_type": "dinov2", "hidden_size": 24}}, "a tower of type 'dinov2'"),
        ({"projector_hidden_act": "relu"}, "a projector with 'relu'"),
    ],
)
def test_what_ours_cannot_be_is_refused(change, message):
    config = LlavaConfig(**{"text_config": TEXT, "vision_config": VISION, **change})
    with pytest.raises(CheckpointError, match=message):
        LLAVA.nodes(config, {})


def test_canvases_are_turned_and_rows_end_with_a_string_of_their_own():
    pinpoints = [[32, 64], [96, 32]]
    config = LlavaNextConfig(vision_config=VISION, text_config=TEXT, image_grid_pinpoints=pinpoints)
    nodes = LLAVA_NEXT.nodes(config, {})
    encoder = nodes["encoders"]["image"]
    assert encoder["canvases"] == [[64, 32], [32, 96]] and encoder["newline"] == NEWLINE
    assert encoder["encoder"]["layer"] == -2 and nodes["adapters"]["image"]["bare"]
    assert LLAVA_NEXT.config(compose(**nodes))["image_grid_pinpoints"] == pinpoints


@pytest.mark.parametrize(("pooled", "layer", "depth"), [("pooler", -2, 3), ("cls", -1, 2)])
def test_a_tower_whose_upper_layers_were_let_go_becomes_a_shorter_one(pooled, layer, depth):
    node = {"name": "clip", "config": TOWER, "layer": -2, "pooled": pooled}
    backbone = {"name": "huggingface", "config": TEXT}
    config = LLAVA.config(compose(encoders={"image": node}, adapters={"image": {"name": "mlp"}}, backbone=backbone))
    assert config["vision_feature_layer"] == layer
    assert config["vision_config"]["num_hidden_layers"] == depth
