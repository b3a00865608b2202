"""Swapping `queries` for `task_tokens` turns slots into text."""

import numpy as np
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.types import Output, Sample, TaskCall, Text, Turn

SAMPLE = Sample(
    turns=(
        Turn(role="user", parts=(Text(text="draw a 7"),)),
        Turn(
            role="assistant",
            parts=(
                Text(text="Sure."),
                Output(
                    kind="image",
                    target=np.zeros((8, 8, 3), np.uint8),
                    call=TaskCall(task="generate_image", instruction="a 7"),
                ),
            ),
        ),
    ),
    id="draw",
)


def _encoded(nodes, head):
    model = compose(**{**nodes, "heads": {"text": {"name": "text"}, "image": head}})
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    return model, processor, processor([SAMPLE])


def test_the_call_is_learned_as_text(nodes):
    model, processor, batch = _encoded(nodes, {"name": "task_tokens"})
    learned = processor.decode(batch.labels[batch.labels != -100].tolist())
    assert learned.startswith("Sure. <generate_image>a 7</generate_image>")
    assert batch.outputs == {}
    assert set(model(batch).losses) == {"text/cross_entropy"}


def test_the_same_sample_fills_slots_with_queries(nodes):
    model, processor, batch = _encoded(nodes, {"name": "queries", "num_queries": 16})
    assert int(batch.outputs["image"].slots.sum()) == 16
    assert "<generate_image>" not in processor.decode(batch.input_ids[0].tolist())
    assert torch.isfinite(model(batch).total)
