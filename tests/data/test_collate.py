"""Examples -> Batch."""

import pytest
import torch

from mmunify.data.collate import collate
from mmunify.data.encode import Example, MediaItem
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


def example_of(**media):
    return Example(input_ids=[], labels=[], position_ids=[], segment=[], full=[], media=media)


def test_items_of_any_size_are_filled_up_with_zeros():
    shapes = [(3, 3, 4, 6), (1, 3, 8, 2)]
    items = [MediaItem(values=torch.ones(shape), extent=(1, 1), slots=(), any_size=True) for shape in shapes]
    values = collate([example_of(image=items[:1]), example_of(image=items[1:])]).media["image"].values
    assert values.shape == (2, 3, 3, 8, 6)
    assert values[0, :, :, :4].min() == 1 and not values[0, :, :, 4:].any()
    assert values[1, :1, :, :, :2].min() == 1 and values[1].sum() == 3 * 8 * 2


def test_items_of_one_size_must_have_it():
    items = [MediaItem(values=torch.ones(frames, 3, 4, 4), extent=(1, 1), slots=()) for frames in (1, 2)]
    with pytest.raises(RuntimeError, match="equal size"):
        collate([example_of(image=items)])


def test_regions_find_their_medium_in_the_batch():
    picture = MediaItem(values=torch.zeros(1, 3, 4, 4), extent=(4, 4), slots=())
    part = lambda number: MediaItem(  # noqa: E731
        values=torch.full((5,), 0.5), extent=(4, 4), slots=(), part_of=("image", number)
    )
    first = example_of(image=[picture, picture], region=[part(1), part(0)])
    second = example_of(image=[picture], region=[part(0)])
    values = collate([first, second]).media["region"].values
    assert values[:, 0].tolist() == [1, 0, 2]
    assert (values[:, 1:] == 0.5).all()
    assert first.media["region"][0].values[0] == 0.5
