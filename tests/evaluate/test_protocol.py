"""What protocols are given: the artifacts of an answer, and the picture that it is about."""

import numpy as np
import pytest

from mmunify.errors import DataError
from mmunify.evaluate.answers import Answer, Prompt
from mmunify.evaluate.protocol import Tools, source_picture
from mmunify.tokens.parsing import ParsedReply
from mmunify.types import Artifact, Media, Sample, TaskCall, Text, Turn


def picture(value):
    return np.full((2, 3, 3), value, dtype=np.uint8)


def answer(*media):
    sample = Sample(turns=(Turn(role="user", parts=(*media, Text(text="what is this?"))),), id="a")
    truth = Turn(role="assistant", parts=(Text(text="a seven"),))
    nothing = ParsedReply()
    return Answer(prompt=Prompt(sample=sample, whole=sample, truth=truth), text="", reply=nothing, truth=nothing)


def test_the_last_artifact_of_a_kind():
    made = [
        Artifact(kind=kind, data=picture(i), call=TaskCall(task="edit"), producer="global_edit")
        for i, kind in enumerate("aba")
    ]
    tools = Tools(run=lambda answer: made)
    assert tools.last(answer(), "a")[0, 0, 0] == 2 and tools.last(answer(), "b")[0, 0, 0] == 1
    assert tools.last(answer(), "mask") is None


def test_the_source_is_the_last_picture_whatever_comes_after_it():
    given = [Media(kind="image", source=picture(i)) for i in (1, 2)]
    sound = Media(kind="audio", source=np.zeros(8, dtype=np.float32))
    np.testing.assert_array_equal(source_picture(answer(*given, sound)), picture(2))


def test_a_source_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match="torn.png"):
        source_picture(answer(Media(kind="image", source=str(tmp_path / "torn.png"))))
