import pytest
from transformers import Blip2Config

from mmunify.checkpoint.blip2 import BLIP2
from mmunify.composer import compose
from mmunify.errors import CheckpointError
from tests.parity.test_llava import TEXT, TOWER

READER = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def config(**changes):
    settings = {"vision_config": TOWER, "qformer_config": READER, "text_config": TEXT, "num_query_tokens": 3}
    return Blip2Config(**settings | changes)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("attention.attention.query.weight", "attention.query.weight"),
        ("attention.output.dense.bias", "attention.output.bias"),
        ("attention.output.LayerNorm.bias", "attention_norm.bias"),
        ("crossattention.attention.key.bias", "cross.key.bias"),
        ("crossattention.output.dense.weight", "cross.output.weight"),
        ("output_query.dense.weight", "feed_forward.reduce.weight"),
    ],
)
def test_names_of_a_block(theirs, ours):
    assert BLIP2.names.ours(f"qformer.encoder.layer.3.{theirs}") == f"adapters.image.blocks.3.{ours}"
    assert BLIP2.names.theirs(f"adapters.image.blocks.3.{ours}") == f"qformer.encoder.layer.3.{theirs}"


@pytest.mark.parametrize("frequency", [1, 2, 3])
def test_sizes_there_and_back(frequency):
    made = BLIP2.config(
        compose(**BLIP2.nodes(config(qformer_config=READER | {"cross_attention_frequency": frequency}), {}))
    )
    wanted = READER | {"cross_attention_frequency": frequency, "encoder_hidden_size": 16, "hidden_dropout_prob": 0.1}
    assert wanted.items() <= made["qformer_config"].items()
    assert made["num_query_tokens"] == 3 and TOWER.items() <= made["vision_config"].items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {"model_type": "t5"}}, "language model of type 't5' is no decoder"),
        ({"qformer_config": READER | {"intermediate_size": 24}}, "feed-forwards 24 wide for states of 8"),
        ({"qformer_config": READER | {"use_qformer_text_input": True}}, "use_qformer_text_input=True"),
    ],
)
def test_what_ours_cannot_be_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        BLIP2.nodes(config(**change), {})
