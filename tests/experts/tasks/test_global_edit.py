import numpy as np
import pytest

from mmunify.data.digit_world.edits import GLOBAL_EDITS
from mmunify.data.digit_world.phrases import EDIT
from mmunify.errors import UserError
from mmunify.experts.tasks.global_edit import EDITS, find_edit
from mmunify.parts import Workspace
from mmunify.registry import EXPERTS
from mmunify.types import Media, TaskCall

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def run(instruction):
    call = TaskCall(task="edit", instruction=instruction)
    return EXPERTS.build({"name": "global_edit"})(call, Workspace(media=(Media(kind="image", source=PICTURE),)))[0]


@pytest.mark.parametrize("instruction", GLOBAL_EDITS)
def test_edits_of_the_digit_world_are_exact(instruction):
    truth = GLOBAL_EDITS[instruction](PICTURE)
    for asked in (instruction, *EDIT[instruction]):
        made = run(asked)
        assert np.abs(made.data.astype(int) - truth).max() <= 1, asked
        assert made.data.dtype == np.uint8 and made.name.startswith("edited-")


@pytest.mark.parametrize("name", [name for name, _, _ in EDITS])
def test_every_listed_edit_answers_to_its_own_name(name):
    edit = find_edit(name)
    assert edit is next(listed for other, _, listed in EDITS if other == name)
    made = run(name).data
    assert made.dtype == np.uint8 and sorted(made.shape[:2]) == [6, 9]
    assert not np.array_equal(made, PICTURE)


def test_turns_and_flips():
    assert np.array_equal(run("rotate it to the left").data, np.rot90(PICTURE))
    assert np.array_equal(run("rotate it").data, np.rot90(PICTURE, 3))
    assert np.array_equal(run("flip it upside down").data, PICTURE[::-1])


def test_what_is_not_known_is_answered_with_what_is():
    with pytest.raises(
        UserError, match="no edit is known for 'make it sad'; known are: invert the colors, make it gray"
    ):
        run("make it sad")
