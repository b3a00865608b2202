"""The words beside a medium."""

import pytest
import torch

from mmunify.composer import compose
from mmunify.data.processor import Processor
from mmunify.data.side_text import side_ids, words_beside
from mmunify.errors import CheckpointError, DataError
from mmunify.testing import randomize
from mmunify.types import Media, Sample, SideText, Text, Turn

QFORMER = {"name": "qformer", "num_queries": 4, "depth": 2, "dim": 16, "num_heads": 2, "text": {"vocab_size": 400}}


def test_the_words_of_its_turn_without_media():
    first, second = Media(kind="image", source="1"), Media(kind="image", source="1")
    turns = (
        Turn(role="user", parts=(first, Text(text=" what is it? "))),
        Turn(role="assistant", parts=(Text(text="a cat"),)),
        Turn(role="user", parts=(Text(text="and"), second, Text(text="here?"))),
    )
    sample = Sample(turns=turns, id="a")
    assert (words_beside(first, sample), words_beside(second, sample)) == ("what is it?", "and here?")


def test_ids_of_the_backbone_or_of_their_own_tokenizer(llama_folder):
    own = lambda words: [ord(letter) for letter in words]  # noqa: E731
    assert side_ids("abc", SideText(vocab_size=200, max_length=2), own) == (97, 98)
    made = side_ids("abc", SideText(vocab_size=500, path=str(llama_folder)), own)
    assert len(made) == 3 and made != (97, 98, 99)
    assert side_ids("", SideText(vocab_size=5), own) == ()
    with pytest.raises(DataError, match="have the id 99, and their adapter knows 99: .*that of the backbone"):
        side_ids("abc", SideText(vocab_size=99), own)
    with pytest.raises(CheckpointError, match="the tokenizer './nowhere' of the words beside media cannot be read"):
        side_ids("abc", SideText(vocab_size=99, path="./nowhere"), own)


def test_from_samples_to_queries(nodes, make_sample):
    """The question reaches the queries of its own picture; a batch is its samples one by one."""
    nodes["adapters"] = {"image": QFORMER}
    model = randomize(compose(**nodes)).eval()
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    samples = [make_sample("first", 2), make_sample("b")]
    batch = processor(samples)
    media = batch.media["image"]
    assert media.side_mask.sum(1).tolist() == [len("look at first")] * 2 + [len("look at b")]
    assert media.side_ids[0].tolist() == media.side_ids[1].tolist()
    embeds = model.embed(batch, model.encode(batch))
    alone = processor(samples[1:])
    read = model.embed(alone, model.encode(alone))[alone.media["image"].slots]
    torch.testing.assert_close(embeds[media.slots][-4:], read, atol=1e-5, rtol=0)
    other = Turn(role="user", parts=(samples[1].turns[0].parts[0], Text(text="look at C")))
    changed = processor([Sample(turns=(other, *samples[1].turns[1:]), id="b")])
    assert (model.embed(changed, model.encode(changed))[changed.media["image"].slots] - read).abs().max() > 1e-3


def test_a_medium_without_words_has_none(nodes, make_sample):
    nodes["adapters"] = {"image": QFORMER}
    model = compose(**nodes)
    processor = Processor(model.spec(), model.backbone.tokenizer, model.tokens)
    silent = Sample(turns=(Turn(role="user", parts=make_sample("b").turns[0].parts[:1]),), id="silent")
    assert processor([silent]).media["image"].side_ids is None
    both = processor([silent, make_sample("b")]).media["image"]
    assert both.side_mask.sum(1).tolist() == [0, len("look at b")]
    assert model(processor([silent, make_sample("b")])).total.isfinite()
