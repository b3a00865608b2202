"""Frames: any image encoder, frame by frame."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.errors import UserError
from mmunify.parts import Context
from mmunify.registry import ENCODERS
from mmunify.testing import check_encoder, randomize
from mmunify.tokens import TokenRegistry
from mmunify.types import Layout, Media, Run, Sample, Text, Turn

CLIP = {
    "name": "clip",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 24,
        "patch_size": 8,
    },
    "layers": [0],
}


def example(folder):
    return {"encoder": CLIP, "num_frames": 1}


def example_values():
    return clips(1)


def clips(num_frames, num_items=2):
    return torch.randn(num_items, num_frames, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def build(**arguments):
    encoder = ENCODERS.build({"name": "frames", "encoder": CLIP, **arguments})
    return randomize(encoder, seed=1).eval()


def test_the_node_says_how_clips_become_numbers():
    encoder = build(num_frames=4, sampling="ends")
    inner = encoder.encoder.preprocess
    assert (encoder.preprocess.kind, encoder.preprocess.num_frames, encoder.preprocess.sampling) == ("video", 4, "ends")
    assert (encoder.preprocess.size, encoder.preprocess.mean) == (inner.size, inner.mean)
    assert build().preprocess.num_frames == 64
    assert encoder.layout((640, 480)) == Layout(runs=(Run(slots=9, grid=(3, 3)),) * 4)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_every_frame_is_what_the_image_encoder_makes_of_it(num_frames):
    encoder, values = build(num_frames=num_frames), clips(num_frames)
    features = encoder(values, Context(kind="video"))
    assert features.tokens.shape == (2, encoder.layout().num_slots, 16) and features.grid == (3, 3)
    for index in range(num_frames):
        frame = encoder.encoder(values[:, index : index + 1], Context())
        place = slice(9 * index, 9 * (index + 1))
        torch.testing.assert_close(features.tokens[:, place], frame.tokens, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(features.layers[0][:, place], frame.layers[0], atol=1e-6, rtol=1e-5)
    alone = [encoder.encoder(values[:, i : i + 1], Context()).pooled for i in range(num_frames)]
    torch.testing.assert_close(features.pooled, torch.stack(alone).mean(0), atol=1e-6, rtol=1e-5)


def test_clips_of_fewer_frames_than_the_node_asks_for_are_encoded_too():
    encoder = build(num_frames=8)
    assert encoder(clips(3), Context()).tokens.shape == (2, 27, 16)
    assert encoder(clips(1), Context()).tokens.shape == (2, 9, 16)


def test_it_is_deterministic_and_its_gradients_reach_every_parameter():
    check_encoder(build(num_frames=1), clips(1))
    encoder = build(num_frames=3)
    first, second = (encoder(clips(3), Context()).tokens for _ in range(2))
    assert torch.equal(first, second)
    alone = encoder(clips(3)[:1], Context()).tokens
    torch.testing.assert_close(alone, first[:1], atol=1e-5, rtol=0)


def test_a_clip_without_a_class_token_in_the_raster_is_one_run():
    node = {**CLIP, "drop_class": False}
    encoder = ENCODERS.build({"name": "frames", "encoder": node, "num_frames": 2})
    assert encoder.layout().runs == (Run(slots=20, num_frames=2),)
    features = encoder(clips(2), Context())
    assert (features.grid, features.num_frames) == (None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames of at least 1, got 0"),
        ({"encoder": {"name": "anyres", "encoder": CLIP, "canvases": [[48, 24]]}}, "pictures of one size; AnyRes"),
        ({"encoder": {"name": "frames", "encoder": CLIP}}, "FramesEncoder reads media of kind 'video'"),
    ],
)
def test_what_it_cannot_wrap(arguments, message):
    with pytest.raises(UserError, match=message):
        build(**arguments)


def test_a_temporal_q_former_reads_it_inside_a_model(llama_folder):
    model = compose(
        encoders={"video": {"name": "frames", "encoder": CLIP, "num_frames": 4}},
        adapters={"video": {"name": "qformer", "num_queries": 5, "depth": 2, "dim": 16, "positions": "frames"}},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=("image", "video")),
    )
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    frames = torch.randint(0, 255, (2, 6, 20, 30, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    samples = [
        Sample(
            turns=(
                Turn(role="user", parts=(Media(kind="video", source=clip[:length]), Text(text="where to?"))),
                Turn(role="assistant", parts=(Text(text="to the left"),)),
            ),
            id=str(length),
        )
        for clip, length in zip(frames, (6, 1), strict=True)
    ]
    batch = processor(samples)
    assert batch.media["video"].values.shape == (2, 4, 3, 24, 24)
    assert batch.media["video"].extent.tolist() == [[30, 20]] * 2
    assert batch.media["video"].slots.sum(1).tolist() == [5, 5]
    report = model.train()(batch)
    report.total.backward()
    assert report.total.isfinite()
    assert model.adapters["video"].temporal.table.grad.abs().sum(1).gt(0).tolist() == [True] * 4 + [False] * 60
