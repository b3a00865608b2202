"""Examples -> Batch."""

import pytest
import torch

from mmunify.errors import DataError


def test_rows_are_padded_on_the_right(processor, make_sample):
    batch = processor([make_sample("a", 0), make_sample("longer name", 1)])
    lengths = batch.attention.valid.sum(1)
    assert lengths[0] < lengths[1] <= batch.input_ids.shape[1] < lengths[1] + 32
    assert batch.input_ids.shape[1] % 32 == 0
    assert (batch.labels[0, lengths[0] :] == -100).all()
    assert (batch.attention.document[0, lengths[0] :] == -1).all()
    assert batch.attention.is_plain
    assert batch.batch_size == 2 and batch.sample_ids == ("a", "longer name")


def test_items_are_packed_in_row_order(processor, make_sample):
    batch = processor([make_sample("a", 2), make_sample("b", 0), make_sample("c", 1)])
    media = batch.media["image"]
    assert media.values.shape == (3, 1, 3, 32, 32)
    assert media.document.tolist() == [0, 0, 2]
    assert media.slots.sum(1).tolist() == [32, 0, 16]
    assert "image" not in batch.outputs


def test_outputs_without_a_target_stay_unknown(processor, make_sample):
    batch = processor([make_sample("a", 0, 2), make_sample("b", 0, 1)])
    assert batch.outputs["image"].target.shape[0] == 3
    assert batch.outputs["image"].document.tolist() == [0, 0, 1]


def test_keys_depend_on_the_sample_alone(processor, make_sample):
    one = processor([make_sample("a"), make_sample("b")])
    other = processor([make_sample("b")])
    assert one.keys[1] == other.keys[0] != one.keys[0]


def test_full_attention_is_not_plain(processor, make_sample):
    from dataclasses import replace

    attention = processor([make_sample("a")]).attention
    assert not replace(attention, full=torch.ones_like(attention.full)).is_plain


def test_nothing_to_collate(processor):
    with pytest.raises(DataError, match="empty list"):
        processor.collate([])
