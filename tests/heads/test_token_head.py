"""Which states heads read: at the strings of an item, before them, or of all that was said so far."""

import pytest
import torch

from mmunify.errors import PlacementError, UserError
from mmunify.heads._token_head import (
    closing,
    last_positions,
    medium_items,
    read_ranges,
    read_slots,
    require_hidden,
    signal_slot,
    token_slot,
)
from mmunify.heads.signal_tokens import SignalTokenHead
from mmunify.parts import Slot
from mmunify.types import Attention, Batch, OutputBatch

STATES = torch.arange(16.0).reshape(2, 8, 1)


def head():
    made = SignalTokenHead(4, 4, num_tokens=2, target="image")
    made.node = "image"
    return made


def batch_of(places, documents, condition=(), slots=2):
    """Rows of 8 positions; `places`: (row, column) of every string; `documents`: per row, one number per position."""
    at = torch.zeros(2, 8, dtype=torch.bool)
    for place in places:
        at[place] = True
    document = torch.tensor(documents)
    outputs = OutputBatch(
        slots=at, document=torch.zeros(len(places) // slots, dtype=torch.long), target=None, condition=condition
    )
    attention = Attention(
        document=document,
        segment=torch.zeros_like(document),
        full=torch.zeros(2, 8, dtype=torch.bool),
        valid=document >= 0,
    )
    return Batch(
        input_ids=torch.zeros(2, 8, dtype=torch.long),
        labels=torch.zeros(2, 8, dtype=torch.long),
        position_ids=torch.zeros(2, 8, dtype=torch.long),
        attention=attention,
        media={},
        outputs={"image": outputs},
        task=torch.zeros(2, dtype=torch.long),
        sample_ids=("first", "second"),
    )


ROWS = [[0] * 8, [1] * 4 + [2] * 3 + [-1]]


def test_states_at_the_strings_or_before_them():
    batch = batch_of([(0, 3), (0, 4), (1, 5), (1, 6)], ROWS)
    assert read_slots(STATES, batch, head(), 2)[..., 0].tolist() == [[3, 4], [13, 14]]
    assert read_slots(STATES, batch, head(), 2, "before")[..., 0].tolist() == [[2, 3], [12, 13]]


def test_slots_of_another_layout_are_told():
    batch = batch_of([(0, 3), (0, 4), (1, 5), (1, 6)], ROWS)
    with pytest.raises(PlacementError, match="reads 3 positions of each of 2 outputs, and its slots are 4"):
        read_slots(STATES, batch, head(), 3)


def test_a_range_ends_at_the_string_and_stays_in_its_document():
    batch = batch_of([(0, 3), (1, 5)], ROWS, slots=1)
    states, within = read_ranges(STATES, batch, head())
    assert states[:, 0, 0].tolist() == [0, 8]
    assert [row.nonzero().flatten().tolist() for row in within] == [[0, 1, 2, 3], [4, 5]]
    _, before = read_ranges(STATES, batch, head(), "before")
    assert [row.nonzero().flatten().tolist() for row in before] == [[0, 1, 2], [4]]


def test_a_batch_without_items_reads_nothing():
    batch = batch_of([], ROWS)
    batch.outputs.pop("image")
    assert read_slots(STATES, batch, head(), 2).shape == (0, 2, 1)
    assert read_ranges(STATES, batch, head())[1].shape == (0, 8)
    assert medium_items(batch, head(), "image") == []


def test_the_last_real_positions_are_taken_from_rows_with_holes():
    states = torch.arange(10.0).reshape(2, 5, 1)
    real = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]]).bool()
    taken, mask = last_positions(states, real, 2)
    assert taken[..., 0].tolist() == [[2.0, 3.0], [0.0, 8.0]]
    assert mask.tolist() == [[True, True], [False, True]]
    assert last_positions(states, real, 4)[0][0, :, 0].tolist() == [0.0, 0.0, 2.0, 3.0]


def test_media_of_items():
    batch = batch_of([(0, 3), (1, 5)], ROWS, condition=(("image", 1), ("image", 0)), slots=1)
    assert medium_items(batch, head(), "image") == [1, 0]
    batch = batch_of([(0, 3), (1, 5)], ROWS, condition=(("image", 1), None), slots=1)
    with pytest.raises(PlacementError, match=r"1 outputs of node 'image' belong to no medium.*samples first, second"):
        medium_items(batch, head(), "image")


def test_strings_of_a_slot():
    spec = signal_slot(["[IMG0]", "[IMG1]"], ["[IMG0]"])
    assert [run.token for run in spec.layout.runs] == ["[IMG0]", "[IMG1]"] and spec.learned == {"[IMG0]"}
    assert closing("<img>", "queries") == "</img>"
    with pytest.raises(UserError, match=r"opens='\[IMG\]' of a queries head is no tag"):
        closing("[IMG]", "queries")


def test_what_a_head_of_strings_needs():
    with pytest.raises(TypeError, match="SignalTokenHead needs a backbone; this model has none"):
        require_hidden(None, head())

    class Plain(Slot):
        def run(self, embeds, commit=True):
            return embeds

    with pytest.raises(TypeError, match="needs a TokenSlot, got Plain"):
        token_slot(Plain())
