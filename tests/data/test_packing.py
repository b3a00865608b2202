"""Rows of several samples, and batches that stay within a number of positions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmunify.data.packing import RowPacker, pack_rows
from mmunify.data.processor import Processor
from mmunify.errors import DataError


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(50, 120))
def test_rows_hold_every_example_once_and_never_too_much(lengths, room):
    rows = pack_rows(lengths, room)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    sizes = [sum(lengths[place] for place in row) for row in rows]
    assert max(sizes) <= room
    assert len(rows) <= 2 * -(-sum(lengths) // room)
    assert rows == sorted(sorted(row) for row in rows)


def test_rows_are_of_about_equal_length():
    assert pack_rows([50, 40, 30, 20, 10, 10], 90) == [[0, 3, 4], [1, 2, 5]]
    assert pack_rows([5], 90) == [[0]] and pack_rows([90, 90], 90) == [[0], [1]]


@pytest.fixture
def short(model):
    """A processor whose rows have at most 128 positions."""
    return Processor(model.spec(), model.backbone.tokenizer, model.tokens, max_length=128)


def test_documents_of_a_row_start_anew(short, make_sample):
    packer = RowPacker(short, packing=True)
    examples = [packer.encode(make_sample(name, pictures)) for name, pictures in (("a", 1), ("bb", 0), ("ccc", 1))]
    lengths = [len(example.input_ids) for example in examples]
    whole = RowPacker(Processor(short.spec, short.tokenizer, short.tokens), packing=True).batches(examples)
    (batch,) = whole
    assert batch.batch_size == 1 and batch.sample_ids == ("a", "bb", "ccc")
    document = batch.attention.document[0]
    assert [int((document == number).sum()) for number in range(3)] == lengths
    assert batch.attention.valid.sum() == sum(lengths) and (document[sum(lengths) :] == -1).all()
    starts = [0, lengths[0], lengths[0] + lengths[1]]
    assert (batch.position_ids[0, starts] == 0).all() and (batch.labels[0, starts] == -100).all()
    for start, example in zip(starts, examples, strict=True):
        end = start + len(example.input_ids)
        assert batch.input_ids[0, start:end].tolist() == example.input_ids
        assert batch.position_ids[0, start:end].tolist() == example.position_ids
        assert batch.labels[0, start + 1 : end].tolist() == example.labels[1:]
        for item in example.media.get("image", ()):
            assert batch.media["image"].slots[0, [start + place for place in item.slots]].all()
    assert batch.media["image"].slots.sum() == 32 and batch.media["image"].document.tolist() == [0, 2]


def test_rows_stay_within_max_length(short, make_sample):
    packer = RowPacker(short, packing=True)
    examples = [packer.encode(make_sample(name)) for name in "abcdef"]
    (batch,) = packer.batches(examples)
    assert batch.attention.valid.sum(1).max() <= 128 and 1 < batch.batch_size < 6
    assert sorted(batch.sample_ids) == list("abcdef")


@pytest.mark.parametrize("packing", [False, True])
def test_batches_stay_within_their_positions(short, make_sample, packing):
    packer = RowPacker(short, packing, batch_tokens=200)
    examples = [packer.encode(make_sample(name * size)) for size, name in enumerate("abcdefgh", start=1)]
    batches = packer.batches(examples)
    assert len(batches) > 1 and all(batch.input_ids.numel() <= 200 for batch in batches)
    assert sorted(name for batch in batches for name in batch.sample_ids) == sorted(e.id for e in examples)
    if not packing:
        lengths = [int(batch.attention.valid.sum(1).max()) for batch in batches]
        assert lengths == sorted(lengths, reverse=True)


def test_without_a_number_of_positions_there_is_one_batch(short, make_sample):
    packer = RowPacker(short)
    (batch,) = packer.batches([packer.encode(make_sample(name)) for name in ("b", "aaaa", "c")])
    assert batch.sample_ids == ("b", "aaaa", "c") and batch.attention.is_plain


def test_a_sample_that_fits_no_row_is_refused_whole(short, make_sample):
    packer = RowPacker(short, packing=True, batch_tokens=32)
    with pytest.raises(DataError, match=r"sample 'long' has \d+ positions, and a row of batch_tokens=32 has 32"):
        packer.encode(make_sample("long", 2))
    with pytest.raises(DataError, match="more than max_length=128"):
        packer.encode(make_sample("long", 9))
    with pytest.raises(DataError, match="batch_tokens=31"):
        RowPacker(short, batch_tokens=31)


def test_a_blank_batch_teaches_nothing(short, model):
    blank = RowPacker(short).blank()
    report = model.train()(blank)
    assert all(int(count) == 0 for count in report.counts.values())
    assert sum(float(loss.detach()) for loss in report.losses.values()) == 0 and torch.equal(
        blank.labels, blank.labels * 0 - 100
    )
