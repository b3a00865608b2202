import numpy as np
import pytest
import torch

from mmunify.errors import RecipeError, UserError
from mmunify.experts.router import DIGIT_EXPERTS, TaskRouter
from mmunify.parts import Expert, Workspace
from mmunify.tokens import DIGIT_TASKS
from mmunify.types import Artifact, Media, Region, TaskCall

BOX = Region(box=(0.25, 0.25, 0.75, 0.75), label="square")
RED = np.full((32, 32, 3), (200, 40, 40), np.uint8)
SQUARE = np.full((32, 32, 3), 100, np.uint8)
SQUARE[8:24, 8:24] = (200, 30, 30)


def image(pixels):
    return Media(kind="image", source=pixels)


class Echo(Expert):
    """Gives back what it was given, plus one."""

    name, tasks, inputs = "echo", ("edit", "segment"), ("image",)

    def __init__(self, kind="image", reason=None, error=None):
        self.kind, self.reason, self.error, self.seen = kind, reason, error, []

    def available(self):
        return self.reason

    def __call__(self, call, workspace):
        if self.error is not None:
            raise self.error
        media = workspace.media[-1 if call.media is None else call.media]
        self.seen.append(media.source)
        return [Artifact(kind=self.kind, data=media.source + 1, call=call, producer="echo")]


EDIT = TaskCall(task="edit", instruction="x", span=(3, 9))


def test_a_picture_that_a_call_makes_is_the_next_calls_medium():
    echo = Echo()
    artifacts, problems = TaskRouter({"edit": echo}).run([EDIT] * 3, Workspace(media=(image(RED),)))
    assert [int(a.data[0, 0, 0]) for a in artifacts] == [201, 202, 203] and problems == ()
    assert [int(seen[0, 0, 0]) for seen in echo.seen] == [200, 201, 202]


def test_masks_are_no_pictures_to_go_on_with():
    masks, echo = Echo(kind="mask"), Echo()
    calls = [TaskCall(task="segment", instruction="x"), EDIT]
    TaskRouter({"segment": masks, "edit": echo}).run(calls, Workspace(media=(image(RED),)))
    assert np.array_equal(echo.seen[0], RED)


def test_a_call_may_say_which_medium_it_means():
    echo, workspace = Echo(), Workspace(media=(image(RED), Media(kind="audio", source=None)))
    first = TaskCall(task="edit", instruction="x", media=0)
    artifacts, problems = TaskRouter({"edit": echo}).run([first, first], workspace)
    assert [int(seen[0, 0, 0]) for seen in echo.seen] == [200, 200] and not problems
    for index in (1, 7, -1):
        wrong = TaskCall(task="edit", instruction="x", media=index)
        _, (problem,) = TaskRouter({"edit": echo}).run([wrong], Workspace(media=workspace.media[1:]))
        assert problem.code == "missing_medium" and f"at index {index}" in problem.message


@pytest.mark.parametrize(
    ("experts", "call", "media", "code", "message"),
    [
        ({"edit": Echo()}, TaskCall(task="edti"), (RED,), "no_expert", "'edti'; did you mean 'edit'? Known: edit"),
        ({"edit": Echo(reason="no weights")}, EDIT, (RED,), "unavailable", "echo for 'edit' cannot run: no weights"),
        ({"edit": Echo()}, EDIT, (), "missing_medium", "needs a medium of kind 'image' and there is none"),
        (
            {"edit": Echo(error=KeyError("k"))},
            EDIT,
            (RED,),
            "expert_error",
            "echo failed on the edit call: KeyError: 'k'",
        ),
        ({"edit": Echo(error=UserError("too big"))}, EDIT, (RED,), "expert_error", "edit call: too big"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_and_never_an_exception(experts, call, media, code, message):
    artifacts, (problem,) = TaskRouter(experts).run([call], Workspace(media=tuple(map(image, media))))
    assert artifacts == () and problem.code == code and message in problem.message
    assert problem.span == (call.span or (0, 0))


def test_a_failed_call_does_not_stop_the_others():
    router = TaskRouter({"edit": Echo(), "segment": Echo(error=ValueError("x"))})
    artifacts, problems = router.run([EDIT, TaskCall(task="segment"), EDIT], Workspace(media=(image(RED),)))
    assert [int(a.data[0, 0, 0]) for a in artifacts] == [201, 202]
    assert [problem.code for problem in problems] == ["expert_error"]


def test_an_expert_whose_availability_breaks_is_unavailable():
    class Broken(Echo):
        def available(self):
            raise OSError("disk")

    _, (problem,) = TaskRouter({"edit": Broken()}).run([EDIT], Workspace(media=(image(RED),)))
    assert problem.code == "unavailable" and "OSError: disk" in problem.message


def test_calls_with_features_go_to_the_detokenizer():
    def draw(call, workspace):
        return [Artifact(kind="image", data=np.full((2, 2, 3), 7, np.uint8), call=call, producer="detokenizers.image")]

    router = TaskRouter({}).with_conditioned({"generate_image": draw})
    call = TaskCall(task="generate_image", instruction="x", condition=torch.zeros(2, 3))
    (made,), problems = router.run([call], Workspace())
    assert made.producer == "detokenizers.image" and problems == ()
    _, (problem,) = router.run([TaskCall(task="generate_image", instruction="x")], Workspace())
    assert problem.code == "no_expert"


def test_features_without_a_detokenizer_leave_the_instruction_to_the_expert():
    router = TaskRouter.build({"generate_image": {"name": "layout_renderer"}})
    call = TaskCall(task="generate_image", instruction="a red 7", condition=torch.zeros(2, 3))
    (made,), _ = router.run([call], Workspace())
    assert made.producer == "layout_renderer"


def test_every_task_of_the_digit_world_is_answered_without_weights():
    router = TaskRouter.build(DIGIT_EXPERTS)
    assert set(router.experts) == set(DIGIT_TASKS)
    words = {"edit": "invert the colors", "recolor": "blue", "replace": "8"}
    calls = [TaskCall(task=t, instruction=words.get(t, "a red 7"), regions=(BOX,)) for t in DIGIT_TASKS]
    artifacts, problems = router.run(calls, Workspace(media=(image(SQUARE),)))
    assert problems == ()
    assert [a.call.task for a in artifacts] == list(DIGIT_TASKS)
    assert [a.producer for a in artifacts] == [DIGIT_EXPERTS[task]["name"] for task in DIGIT_TASKS]


def test_missing_regions_are_found_before_the_expert_runs():
    router = TaskRouter.build(DIGIT_EXPERTS)
    calls = [TaskCall(task=task, instruction="the red 7") for task in ("segment", "remove")]
    _, problems = router.run(calls, Workspace(media=(image(SQUARE),)))
    assert [problem.code for problem in problems] == ["missing_regions"] * 2
    assert "the segment call names no region: 'the red 7'" in problems[0].message


def test_removing_then_segmenting_sees_the_edited_picture():
    remove, segment = (TaskCall(task=task, instruction="it", regions=(BOX,)) for task in ("remove", "segment"))
    artifacts, _ = TaskRouter.build(DIGIT_EXPERTS).run([segment, remove, segment], Workspace(media=(image(SQUARE),)))
    before, edited, after = (artifact.data for artifact in artifacts)
    assert np.array_equal(before, SQUARE[..., 0] == 200)
    assert np.abs(edited.astype(int) - 100).max() < 10
    assert not np.array_equal(after, before)


def test_the_table_says_what_is_ready():
    rows = TaskRouter({"segment": Echo(reason="no GPU"), "edit": Echo()}).describe()
    assert rows == [
        {"task": "edit", "expert": "echo", "inputs": "image", "licence": "Apache-2.0", "status": "ready"},
        {"task": "segment", "expert": "echo", "inputs": "image", "licence": "Apache-2.0", "status": "no GPU"},
    ]


def test_experts_for_tasks_that_they_do_not_do_are_refused():
    with pytest.raises(UserError, match="expert echo answers edit, segment, not 'remove'"):
        TaskRouter({"remove": Echo()})
    with pytest.raises(RecipeError, match="no expert named 'region_segmentatio'; did you mean 'region_segmentation'"):
        TaskRouter.build({"segment": {"name": "region_segmentatio"}})
