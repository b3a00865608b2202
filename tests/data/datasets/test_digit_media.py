"""Several media of several kinds in one conversation: their order is kept up to the model's batch."""

import itertools

import numpy as np
import pytest
import torch

from mmunify.composer import compose
from mmunify.data.datasets.digit_media import DigitMedia
from mmunify.data.processor import Processor
from mmunify.data.sound import prepare_sound, read_sound
from mmunify.data.video import open_clip, prepare_clip
from mmunify.tokens import TokenRegistry
from mmunify.types import Media, Text
from tests.conftest import TINY_CLIP

WHISPER = {"model_type": "whisper", "num_mel_bins": 8, "d_model": 16, "encoder_layers": 1}
WHISPER |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 10}
CLIP = {"name": "clip", "config": TINY_CLIP}


@pytest.fixture(scope="module")
def processor(llama_folder):
    model = compose(
        encoders={
            "image": CLIP,
            "video": {"name": "frames", "encoder": CLIP, "num_frames": 2},
            "audio": {"name": "hf_audio", "config": WHISPER},
        },
        adapters={kind: {"name": "average_pool", "over": "all"} for kind in ("image", "video", "audio")},
        backbone={"name": "huggingface", "path": str(llama_folder)},
        heads={"text": {"name": "text"}},
        tokens=TokenRegistry(kinds=["image", "video", "audio"]),
    )
    return Processor(model.spec(), model.backbone.tokenizer, model.tokens)


def media_of(sample):
    return [part for turn in sample.turns for part in turn.parts if isinstance(part, Media)]


def test_every_order_and_both_ways_to_show_media_occur():
    data = DigitMedia()
    samples = [data[index] for index in range(40)]
    orders = {tuple(medium.kind for medium in media_of(sample)) for sample in samples}
    assert orders == set(itertools.permutations(("image", "video", "audio")))
    first = [len([part for part in sample.turns[0].parts if isinstance(part, Media)]) for sample in samples]
    assert {1, 3} == set(first) and 8 < first.count(3) < 32


def test_the_questions_are_those_about_each_medium():
    data = DigitMedia("test", turns=2, seed=4)
    for index in range(6):
        sample = data[index]
        alone = {"image": data.pictures[index], "video": data.clips[index], "audio": data.sounds[index]}
        words = [part.text for turn in sample.turns for part in turn.parts if isinstance(part, Text)]
        order = [medium.kind for medium in media_of(sample)]
        assert list(sample.facts) == order
        wanted = [p.text for kind in order for turn in alone[kind].turns for p in turn.parts if isinstance(p, Text)]
        assert words == wanted
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2)


def test_slots_stand_in_the_order_of_the_media(processor):
    data = DigitMedia()
    for index in range(6):
        sample = data[index]
        example = processor.encode(sample)
        slots = sorted((item.slots[0], kind) for kind, items in example.media.items() for item in items)
        assert [kind for _, kind in slots] == [medium.kind for medium in media_of(sample)]


def test_values_belong_to_their_medium(processor):
    samples = [DigitMedia()[index] for index in range(3)]
    batch = processor(samples)
    spec = processor.spec.media
    for row, sample in enumerate(samples):
        found = {medium.kind: medium.source for medium in media_of(sample)}
        clip = prepare_clip(open_clip(found["video"]), spec["video"].preprocess)
        sound = prepare_sound(read_sound(found["audio"]), spec["audio"].preprocess)
        torch.testing.assert_close(batch.media["video"].values[row], clip)
        torch.testing.assert_close(batch.media["audio"].values[row], sound)
    assert all(items.document.tolist() == [0, 1, 2] for items in batch.media.values())


def test_a_sample_is_a_function_of_its_index():
    first, second = DigitMedia(length=8)[7], DigitMedia()[7]
    assert first.id == second.id == "digit_media-train-0-7" and list(first.facts) == list(second.facts)
    kinds = {medium.kind: medium.source for medium in media_of(second)}
    np.testing.assert_array_equal({m.kind: m.source for m in media_of(first)}["video"], kinds["video"])
    with pytest.raises(IndexError, match="sample 8 of a set of mixed media with 8 samples"):
        DigitMedia(length=8)[8]
