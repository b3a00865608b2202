"""Sample -> Example: places, labels, positions, and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from mmunify.data.processor import Processor
from mmunify.errors import DataError
from mmunify.types import Layout, Media, NodeSpec, Output, Run, Sample, SlotSpec, Text, Turn

PICTURE = np.zeros((4, 4, 3), np.uint8)


def with_slot(processor, **changes):
    node = processor.spec.media["image"]
    slot = replace(node.slot, **changes)
    spec = replace(processor.spec, media={"image": replace(node, slot=slot)})
    return Processor(spec, processor.tokenizer, processor.tokens)


def test_media_stand_where_they_were_said(processor):
    parts = (Text(text="first "), Media(kind="image", source=PICTURE), Text(text=" then"))
    example = processor.encode(Sample(turns=(Turn(role="user", parts=parts),)))
    text = processor.tokenizer.decode(example.input_ids)
    assert text == "<s>USER: first <image>" + "<slot>" * 16 + "</image> then"
    (item,) = example.media["image"]
    slot = processor.encoder.ids("<slot>")[0]
    assert [i for i, number in enumerate(example.input_ids) if number == slot] == list(item.slots)
    assert item.extent == (4, 4)


def test_only_answers_are_labelled(processor, make_sample):
    example = processor.encode(make_sample("apple"))
    learned = [i for i in example.labels if i != -100]
    assert processor.tokenizer.decode(learned) == " this is apple" + processor.tokenizer.eos_token


def test_layout_strings_are_vocabulary_and_not_slots(processor, make_sample):
    rows = tuple(run for _ in range(4) for run in (Run(slots=4), Run(token="\n")))
    example = with_slot(processor, layout=Layout(runs=rows)).encode(make_sample("a"))
    assert len(example.media["image"][0].slots) == 16
    newline = processor.encoder.ids("\n")
    assert sum(example.input_ids[i : i + len(newline)] == newline for i in range(len(example.input_ids))) == 4


def test_shared_positions_take_one_position(processor, make_sample):
    example = with_slot(processor, positions="shared").encode(make_sample("a"))
    places = example.media["image"][0].slots
    assert {example.position_ids[p] for p in places} == {example.position_ids[places[0]]}
    assert example.position_ids[places[-1] + 1] == example.position_ids[places[0]] + 1
    assert example.position_ids[-1] == len(example.input_ids) - 16


def test_full_attention_marks_one_segment_per_item(processor, make_sample):
    example = with_slot(processor, attention="full").encode(make_sample("a", 2))
    first, second = (item.slots for item in example.media["image"])
    assert all(example.full[p] for p in (*first, *second))
    assert {example.segment[p] for p in first}.isdisjoint({example.segment[p] for p in second})
    assert sum(example.full) == 32


def test_outputs_start_from_media(processor):
    asked = Turn(role="user", parts=(Media(kind="image", source=PICTURE), Media(kind="image", source=PICTURE)))
    drawn = Turn(role="assistant", parts=(Output(kind="image", target=PICTURE, condition=1),))
    sample = Sample(turns=(asked, drawn), id="edit")
    assert processor.encode(sample).outputs["image"][0].condition == ("image", 1)
    batch = processor([sample, sample])
    assert batch.outputs["image"].condition == (("image", 1), ("image", 3))


def test_targets_without_picture_pass_as_numbers(processor):
    spec = replace(processor.spec, outputs={"patches": NodeSpec(kind="patches", slot=None, preprocess=None)})
    turn = Turn(role="assistant", parts=(Output(kind="patches", target=np.ones((4, 7))),))
    example = Processor(spec, None, processor.tokens).encode(Sample(turns=(turn,)))
    assert example.outputs["patches"][0].target.shape == (4, 7)
    assert example.input_ids == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Media(kind="video", source=PICTURE), r"'odd'.*'video'"),
        (Output(kind="audio", target=PICTURE), r"'odd'.*'audio'"),
        (Output(kind="image"), r"'odd'.*'image'|'odd'.*no target|'odd'.*image output"),
        (Media(kind="image", source="missing.png"), r"'odd': picture missing.png does not exist"),
        (Output(kind="image", target=PICTURE, condition=3), r"starts from medium 3"),
    ],
)
def test_bad_samples_name_themselves(processor, part, message):
    with pytest.raises(DataError, match=message):
        processor.encode(Sample(turns=(Turn(role="assistant", parts=(part,)),), id="odd"))


def test_long_samples_are_refused_never_cut(processor, make_sample):
    short = Processor(processor.spec, processor.tokenizer, processor.tokens, max_length=20)
    with pytest.raises(DataError, match=r"'apple' has \d+ positions, more than max_length=20"):
        short.encode(make_sample("apple"))


def test_slot_specs_of_learned_strings(processor, make_sample):
    heads = processor.spec.outputs["image"]
    slot = replace(heads.slot, learned=frozenset({"opens", "closes"}))
    spec = replace(processor.spec, outputs={"image": replace(heads, slot=slot)})
    example = Processor(spec, processor.tokenizer, processor.tokens).encode(make_sample("a", 0, 1))
    closer = processor.encoder.ids("</img>")[0]
    assert closer in example.labels
    assert isinstance(spec.outputs["image"].slot, SlotSpec)
