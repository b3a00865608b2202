"""Records: LLaVA's format, with every way of getting it wrong named."""

from pathlib import Path

import pytest

from mmunify.data.record import RecordReader
from mmunify.errors import DataError
from mmunify.types import Media, Output, Region, TaskCall, Text

HUMAN, GPT = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bird."}
BIRD = {"id": 12, "image": "birds/1.jpg", "conversations": [HUMAN, GPT]}


def _read(record):
    return RecordReader(record, Path("/media"), "a.jsonl, line 3").read("a:3", "a")


def test_a_llava_record() -> None:
    sample = _read(BIRD)
    assert (sample.id, sample.source, sample.task, dict(sample.facts)) == ("12", "a", "", {})
    question, answer = sample.turns
    assert question.parts == (Media(kind="image", source="/media/birds/1.jpg"), Text(text="What is it?"))
    assert answer.role == "assistant" and answer.parts == (Text(text="A bird."),)


def test_a_medium_may_follow_the_words_and_text_may_stand_alone() -> None:
    record = {"conversations": [{"from": "human", "value": "What is it?\n<image>"}, GPT], "image": "1.jpg"}
    assert [type(part) for part in _read(record).turns[0].parts] == [Text, Media]
    assert _read(record).turns[0].parts[0] == Text(text="What is it?")
    assert _read({"conversations": [{"from": "human", "value": "Hi"}]}).id == "a:3"


def test_only_the_line_break_beside_a_medium_is_dropped() -> None:
    value = "One\n\n<image>\n\nTwo\n"
    parts = _read({"image": "1.jpg", "conversations": [{"from": "human", "value": value}]}).turns[0].parts
    assert [part.text for part in parts if isinstance(part, Text)] == ["One\n", "\nTwo\n"]


def test_several_media_of_several_kinds_keep_their_order() -> None:
    value = "<image>\n<sound>\n<image>\nWhich?"
    record = {"image": ["a.png", "/b.png"], "sound": "c.wav", "conversations": [{"from": "human", "value": value}]}
    media = [part for part in _read(record).turns[0].parts if isinstance(part, Media)]
    assert [(m.kind, m.source) for m in media] == [
        ("image", "/media/a.png"),
        ("audio", "/media/c.wav"),
        ("image", "/b.png"),
    ]


def test_outputs() -> None:
    call = "<generate_image>a red 7</generate_image>"
    outputs = [{"target": "7.png", "call": call}, {"kind": "image", "condition": 0}]
    record = {"conversations": [{"from": "human", "value": "Draw."}, {"from": "gpt", "value": "Sure. <img><img>"}]}
    words, first, second = _read(record | {"outputs": outputs}).turns[1].parts
    assert words == Text(text="Sure. ")
    wanted = TaskCall(task="generate_image", instruction="a red 7")
    assert first == Output(kind="image", target="/media/7.png", call=wanted)
    assert second == Output(kind="image", condition=0)


def test_a_system_turn_may_come_first() -> None:
    turns = _read(BIRD | {"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT]}).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant"]


def _without(key: str) -> dict:
    return {k: v for k, v in BIRD.items() if k != key}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1, 2], r"a record must be a JSON object; got \[1, 2\]"),
        (_without("conversations"), r"conversations must be a list of turns; got None \(keys: id, image\)"),
        (BIRD | {"conversations": []}, r"conversations must be a list of turns; got \[\]"),
        (BIRD | {"conversations": [HUMAN, HUMAN | {"value": "?"}]}, "human first; turn 2 is 'user', not 'assistant'"),
        (BIRD | {"conversations": [GPT | {"value": "<image>"}]}, "turn 1 is 'assistant', not 'user'"),
        ({"conversations": [{"from": "system", "value": "Hm."}]}, "a system turn and nothing else"),
        (BIRD | {"conversations": [{"from": "bot", "value": "x"}]}, "a turn needs from .*got {'from': 'bot'"),
        (BIRD | {"conversations": [{"from": "human"}]}, "a turn needs from"),
        (BIRD | {"conversations": ["hello"]}, "a turn needs from .*got 'hello'"),
        (BIRD | {"conversations": [HUMAN, {"from": "gpt", "value": ""}]}, "the turn of 'gpt' is empty"),
        (_without("image"), "more <image> placeholders than image has paths"),
        (BIRD | {"image": ["a.png", "b.png"]}, r"image holds 1 more than there are placeholders: \['b.png'\]"),
        (BIRD | {"image": 7}, "image must be a path or a list of paths; got 7"),
        (BIRD | {"outputs": [{"kind": "image"}]}, "outputs holds 1 more than there are placeholders"),
        (BIRD | {"conversations": [HUMAN, {"from": "gpt", "value": "<img>"}]}, "<img> needs an entry of kind 'image'"),
        (
            BIRD | {"conversations": [HUMAN, {"from": "gpt", "value": "<img>"}], "outputs": [{"call": "draw"}]},
            "call must hold one well-formed task call; got 'draw'",
        ),
    ],
)
def test_wrong_records_are_named(record, message: str) -> None:
    with pytest.raises(DataError, match=f"^a.jsonl, line 3: .*{message}"):
        _read(record)


def test_masks_and_boxes_are_outputs() -> None:
    said = {"from": "gpt", "value": "Here <mask> and <at>, <at>."}
    outputs = [{"target": "m.png"}, {"target": [0, 0.5, 1, 1], "label": "a bird"}, {"target": [0, 0, 1, 1]}]
    record = {**BIRD, "conversations": [HUMAN, said], "outputs": outputs}
    _, mask, _, box, _, bare, _ = _read(record).turns[1].parts
    assert mask == Output(kind="mask", target="/media/m.png")
    corners = (0.0, 0.5, 1.0, 1.0)
    assert box == Output(kind="box", target=corners, region=Region(box=corners, label="a bird"))
    assert bare.region is None and bare.target == (0.0, 0.0, 1.0, 1.0)


def test_several_nodes_may_have_targets_of_their_own() -> None:
    said = {"from": "gpt", "value": "<img>"}
    outputs = [{"target": {"image": "a.npy", "detokenizers.image": "b.png"}}]
    (drawn,) = _read({**BIRD, "conversations": [HUMAN, said], "outputs": outputs}).turns[1].parts
    assert drawn.target == {"image": "/media/a.npy", "detokenizers.image": "/media/b.png"}


@pytest.mark.parametrize("target", [[0, 1], [0, 0, 1, "x"], 7])
def test_targets_that_are_none_are_named(target) -> None:
    record = {**BIRD, "conversations": [HUMAN, {"from": "gpt", "value": "<at>"}], "outputs": [{"target": target}]}
    with pytest.raises(DataError, match=r"a.jsonl, line 3: (the target of a box is|a target must be)"):
        _read(record)
