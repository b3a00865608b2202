"""Sample -> Example: places, labels, positions, and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from mmunify.data.processor import Processor
from mmunify.errors import DataError
from mmunify.layers.clips import ClipPreprocess
from mmunify.layers.region_frames import RegionPreprocess
from mmunify.layers.sounds import SoundPreprocess
from mmunify.layers.tiling import PatchTiling, SeedXTiling
from mmunify.types import Layout, Media, NodeSpec, Output, Preprocess, Region, Run, Sample, SlotSpec, Text, Turn

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


# ------------------------------------------------------------------------------------------- any size, and regions


def media_processor(processor, **nodes):
    """A processor for other media nodes, with the same slot."""
    slot = processor.spec.media["image"].slot
    media = {name: NodeSpec(kind=name, slot=slot, preprocess=each) for name, each in nodes.items()}
    return Processor(replace(processor.spec, media=media), processor.tokenizer, processor.tokens)


def user(*parts):
    return Sample(turns=(Turn(role="user", parts=parts),), id="odd")


def test_tiles_have_their_own_strings(processor):
    tiled = media_processor(processor, image=SeedXTiling(size=(8, 8), opens="<p>", closes="</p>", fit="stretch"))
    example = tiled.encode(user(Media(kind="image", source=np.zeros((8, 16, 3), np.uint8)), Text(text="?")))
    view = "<slot>" * 16
    text = processor.tokenizer.decode(example.input_ids)
    assert text == f"<s>USER:<p>{view}</p><p>{view}</p><image>{view}</image> ?"
    (item,) = example.media["image"]
    assert (item.values.shape, item.extent, item.any_size) == ((3, 3, 8, 8), (16, 8), True)
    assert len(item.slots) == 48


def test_rows_follow_the_pictures_size(processor):
    patches = PatchTiling(size=(32, 32), patch_size=8, newline="|", attention="full")
    rows = media_processor(processor, image=patches)
    rows.encoder.spec.media["image"] = replace(
        rows.encoder.spec.media["image"], slot=SlotSpec(opens="<image>", layout=patches.layout())
    )
    example = rows.encode(user(Media(kind="image", source=np.zeros((9, 24, 3), np.uint8))))
    row = "<slot>" * 3 + "|"
    assert processor.tokenizer.decode(example.input_ids) == f"<s>USER:<image>{row}{row}"
    assert sum(example.full) == 6


def region_media(**arguments):
    return Media(kind="region", region=Region(box=(0.0, 0.0, 0.5, 0.5)), **arguments)


def test_regions_belong_to_the_latest_medium_or_to_the_one_they_name(processor):
    regions = media_processor(processor, image=Preprocess(size=(8, 8)), region=RegionPreprocess(size=(4, 4)))
    picture = Media(kind="image", source=PICTURE)
    example = regions.encode(user(picture, region_media(), picture, region_media(), region_media(source=0)))
    assert [item.part_of for item in example.media["region"]] == [("image", 0), ("image", 1), ("image", 0)]
    assert example.media["region"][0].values.shape == (1 + 4 + 16,)
    assert example.media["region"][0].extent == (4, 4)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            region_media(),
            r"'odd': .* kind 'region' needs region: and a medium of 'image' before it; .* after 0 of them",
        ),
        (Media(kind="image", source=PICTURE), None),
    ],
)
def test_regions_need_a_medium(processor, part, message):
    regions = media_processor(processor, image=Preprocess(size=(8, 8)), region=RegionPreprocess(size=(4, 4)))
    if message is not None:
        with pytest.raises(DataError, match=message):
            regions.encode(user(part))
        return
    bad = Media(kind="region", region=Region(box=(0.0, 0.0, 0.0, 0.5)))
    with pytest.raises(DataError, match=r"sample 'odd': box .* has no area"):
        regions.encode(user(part, bad))
    with pytest.raises(DataError, match="needs region: .* source 3 after 1 of them"):
        regions.encode(user(part, region_media(source=3)))


def test_media_of_several_kinds_keep_their_order(processor):
    clip = ClipPreprocess(size=(8, 8), num_frames=3, fit="stretch")
    sound = SoundPreprocess(size=(16, 20), num_segments=2, samples=3200)
    nodes = {
        "video": NodeSpec(kind="video", slot=SlotSpec(opens="<video>", layout=Layout.of(2)), preprocess=clip),
        "audio": NodeSpec(kind="audio", slot=SlotSpec(opens="<audio>", layout=Layout.of(3)), preprocess=sound),
    }
    spec = replace(processor.spec, media={**processor.spec.media, **nodes})
    mixed = Processor(spec, processor.tokenizer, processor.tokens)
    frames, tone = np.zeros((5, 6, 4, 3), np.uint8), (np.ones(900, np.float32), 8000)
    said = [("audio", tone), ("image", PICTURE), ("video", frames), ("audio", tone), ("video", frames[:1])]
    parts = [part for kind, source in said for part in (Media(kind=kind, source=source), Text(text=f" {kind}. "))]
    sample = Sample(turns=(Turn(role="user", parts=tuple(parts)), Turn(role="assistant", parts=(Text(text="so"),))))
    example = mixed.encode(sample)
    text = mixed.tokenizer.decode(example.input_ids)
    slots = {"audio": "<audio>" + "<slot>" * 3, "image": "<image>" + "<slot>" * 16, "video": "<video>" + "<slot>" * 2}
    places = [text.index(f"{slots[kind]}", 0) for kind in ("audio", "image", "video")]
    assert places == sorted(places)
    order = [(node, item.slots[0]) for node, items in example.media.items() for item in items]
    assert [node for node, _ in sorted(order, key=lambda pair: pair[1])] == [kind for kind, _ in said]
    batch = mixed.collate([example, processor.encode(replace(sample, turns=sample.turns[1:])), example])
    media = batch.media
    assert (media["video"].values.shape, media["audio"].values.shape) == ((4, 3, 3, 8, 8), (4, 2, 1, 16, 20))
    assert media["video"].extent.tolist() == [[4, 6]] * 4 and media["audio"].extent.tolist() == [[900, 1]] * 4
    assert media["audio"].document.tolist() == [0, 0, 2, 2]
    assert [int(media[kind].slots.sum()) for kind in ("video", "audio", "image")] == [8, 12, 32]


@pytest.mark.parametrize(
    ("kind", "preprocess", "source", "message"),
    [
        ("video", ClipPreprocess(size=(8, 8)), "no.mp4", r"sample 'odd': video no\.mp4 does not exist"),
        ("audio", SoundPreprocess(), (np.zeros(0), 8000), r"sample 'odd': a sound is empty"),
    ],
)
def test_bad_clips_and_sounds_name_their_sample(processor, kind, preprocess, source, message):
    spec = replace(processor.spec, media={kind: NodeSpec(kind=kind, slot=None, preprocess=preprocess)})
    sample = Sample(turns=(Turn(role="user", parts=(Media(kind=kind, source=source),)),), id="odd")
    with pytest.raises(DataError, match=message):
        Processor(spec, processor.tokenizer, processor.tokens).encode(sample)


def test_words_that_open_a_slot_and_never_fill_it_are_refused(processor):
    turns = (Turn(role="user", parts=(Text(text="draw <img>"),)), Turn(role="assistant", parts=(Text(text="a <img>"),)))
    with pytest.raises(DataError, match="sample 'x' opens an output slot with '<img>' in its words and never fills it"):
        processor.encode(Sample(turns=turns, id="x"))


def test_nodes_whose_slots_begin_alike_share_the_longest(processor, make_sample):
    node = processor.spec.outputs["image"]
    runs = tuple(Run(token=f"[IMG{i}]") for i in range(3))
    long = replace(node, slot=SlotSpec(layout=Layout(runs=runs), learned=frozenset({"[IMG0]"})))
    short = replace(node, slot=SlotSpec(layout=Layout(runs=runs[:1])))
    spec = replace(processor.spec, outputs={"short": short, "long": long})
    processor.tokenizer.add_tokens([run.token for run in runs])
    example = Processor(spec, processor.tokenizer, processor.tokens).encode(make_sample("a", 0, 1))
    (whole,), (first,) = example.outputs["long"], example.outputs["short"]
    assert len(whole.slots) == 3 and first.slots == whole.slots[:1]
    assert [example.labels[place] != -100 for place in whole.slots] == [True, False, False]


def test_a_target_may_differ_by_node(processor, make_sample):
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    node = processor.spec.outputs["image"]
    spec = replace(processor.spec, outputs={"image": node, "other": replace(node, slot=None)})
    drawn = Output(kind="image", target={"image": black, "other": white})
    turns = (Turn(role="user", parts=(Text(text="draw"),)), Turn(role="assistant", parts=(drawn,)))
    example = Processor(spec, processor.tokenizer, processor.tokens).encode(Sample(turns=turns))
    assert float(example.outputs["image"][0].target.max()) < float(example.outputs["other"][0].target.min())
