"""The writer: what it writes comes back through the data set `jsonl` as it was."""

import json

import numpy as np
import pytest

from mmunify.data.datasets.digit_patches import DigitPatches
from mmunify.data.datasets.digit_world import DigitWorld
from mmunify.data.datasets.jsonl import JSONLines
from mmunify.data.digit_world.writer import write_samples
from mmunify.data.pictures import read_picture
from mmunify.errors import DataError
from mmunify.tokens import format_call, parse_reply
from mmunify.types import Media, Output, Region, Sample, Text, Turn

WORLD, DIALOGUES = DigitWorld(seed=3), DigitWorld(tasks=["dialogue"])
SAMPLES = [WORLD[index] for index in range(50)] + [DIALOGUES[index] for index in range(10)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_samples(SAMPLES, tmp_path_factory.mktemp("data") / "new")


def _user(*parts) -> Sample:
    return Sample(turns=(Turn(role="user", parts=parts),), id="x")


def _same_part(part, other) -> None:
    assert type(part) is type(other)
    if isinstance(part, Text):
        assert part == other
    elif isinstance(part, Media):
        assert part.kind == other.kind
        np.testing.assert_array_equal(part.source, np.array(read_picture(other.source)))
    else:
        assert (part.kind, part.condition) == (other.kind, other.condition)
        assert (part.call and format_call(part.call)) == (other.call and format_call(other.call))
        assert part.region == other.region
        if part.kind == "box":
            assert part.target == other.target
        else:
            shown = np.array(read_picture(other.target))
            np.testing.assert_array_equal(part.target, shown[..., 0] > 0 if part.kind == "mask" else shown)


def test_samples_come_back(written) -> None:
    read = JSONLines(str(written))
    assert len(read) == 60
    for index, sample in enumerate(SAMPLES):
        again = read[index]
        assert (again.id, again.task, again.source) == (sample.id, sample.task, sample.source)
        assert [turn.role for turn in again.turns] == [turn.role for turn in sample.turns]
        for turn, other in zip(sample.turns, again.turns, strict=True):
            assert len(turn.parts) == len(other.parts)
            for part, counterpart in zip(turn.parts, other.parts, strict=True):
                _same_part(part, counterpart)


def test_facts_come_back_as_plain_json(written) -> None:
    read = JSONLines(str(written))
    seen = set()
    for index, sample in enumerate(SAMPLES):
        facts = read[index].facts
        assert set(facts) == set(sample.facts)
        if "box" in facts:
            assert tuple(facts["box"]) == sample.facts["box"]
        if "call" in facts:
            (call,) = parse_reply(facts["call"], "strict").calls
            assert (call.task, call.instruction) == (sample.facts["call"].task, sample.facts["call"].instruction)
        if "mask" in facts:
            mask = np.array(read_picture(written.parent / facts["mask"]))[..., 0] > 127
            np.testing.assert_array_equal(mask, sample.facts["mask"])
        seen |= set(facts)
    assert {"answer", "box", "call", "mask", "target", "plan", "relations", "scene", "objects"} <= seen


def test_records_are_in_the_common_format(written) -> None:
    records = [json.loads(line) for line in written.read_text().splitlines()]
    caption = next(record for record in records if record["task"] == "caption")
    assert caption["conversations"][0]["from"] == "human"
    assert caption["conversations"][0]["value"].startswith("<image>\n")
    assert caption["conversations"][1] == {"from": "gpt", "value": caption["facts"]["answer"]}
    assert (written.parent / caption["image"]).suffix == ".png"
    pair = next(record for record in records if len(record.get("image", "")) == 2 and record["task"] == "dialogue")
    assert sum("<image>" in turn["value"] for turn in pair["conversations"]) == 2


def test_media_between_words_and_paths_come_back(tmp_path) -> None:
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    parts = (
        Text(text="First\n"),
        Media(kind="image", source=picture),
        Text(text="\nthen"),
        Media(kind="audio", source="/a/b.wav"),
    )
    again = JSONLines(str(write_samples([_user(*parts)], tmp_path)))[0].turns[0].parts
    assert [part.text for part in again if isinstance(part, Text)] == ["First\n", "\nthen"]
    assert [part.kind for part in again if isinstance(part, Media)] == ["image", "audio"]
    assert again[3].source == "/a/b.wav"


def test_the_file_appears_when_complete(tmp_path) -> None:
    def broken():
        yield SAMPLES[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_samples(broken(), tmp_path)
    assert not (tmp_path / "data.jsonl").exists()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (_user(Text(text="see <image>")), "sample 'x': a record has no place for the words '<image>'"),
        (_user(Text(text="a", learned=True)), "no place for learned=True"),
        (_user(Media(kind="image", source="a.png", region=Region(box=(0, 0, 1, 1)))), "no place for regions or codes"),
        (
            _user(Media(kind="image", source=np.zeros((2, 2, 3)))),
            r"uint8 \[H W 3\] or bool \[H W\], not float64 of shape",
        ),
        (_user(Media(kind="image", source=3)), "an array or a path, not int"),
        (_user(Output(kind="mesh")), r"outputs of \['audio', 'box', 'image', 'mask', 'video'\], not 'mesh'"),
        (DigitPatches()[0], "not 'patches'"),
    ],
)
def test_what_has_no_place_in_a_record_is_refused(sample: Sample, message: str, tmp_path) -> None:
    with pytest.raises(DataError, match=message):
        write_samples([sample], tmp_path)
