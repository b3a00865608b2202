"""The task router: sends every call of a reply to the expert of its task, in order, and never raises for an expert."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mmunify.errors import MMUnifyError, UserError
from mmunify.faults import did_you_mean
from mmunify.parts import Expert, Workspace
from mmunify.registry import EXPERTS, Node
from mmunify.tokens import Problem
from mmunify.types import Artifact, Media, TaskCall

Answer = Callable[[TaskCall, Workspace], list[Artifact]]
"""What answers calls: an `Expert`, or a de-tokenizer behind a function."""

DIGIT_EXPERTS: Mapping[str, Node] = {
    "segment": {"name": "region_segmentation"},
    "edit": {"name": "global_edit"},
    "remove": {"name": "inpaint_removal"},
    "recolor": {"name": "recolor"},
    "replace": {"name": "replace"},
    "layout_to_image": {"name": "layout_renderer"},
    "generate_image": {"name": "layout_renderer"},
}
"""An expert without weights for every task of the digit world."""

_log = logging.getLogger(__name__)


class TaskRouter:
    """Dispatch by task. A picture that a call makes is the latest medium for the calls after it.

    Args:
        experts: task -> what answers its calls.
        conditioned: task -> what answers calls that carry a `condition` (features that a head predicted); where it
            has no answer, `experts` has.

    Raises:
        UserError: an expert that says it doesn't do the task that it is given for.
    """

    def __init__(self, experts: Mapping[str, Answer], conditioned: Mapping[str, Answer] | None = None) -> None:
        for task, expert in experts.items():
            tasks = getattr(expert, "tasks", ())
            if tasks and task not in tasks:
                raise UserError(f"expert {_name(expert)} answers {', '.join(tasks)}, not {task!r}")
        self.experts, self.conditioned = dict(experts), dict(conditioned or {})

    @classmethod
    def build(cls, nodes: Mapping[str, Node]) -> "TaskRouter":
        """Build the experts of a recipe: task -> `{name: ..., **kwargs}`.

        Raises:
            RecipeError: a node with faults.
            UserError: as the constructor.
        """
        return cls({task: EXPERTS.build(node) for task, node in nodes.items()})

    def with_conditioned(self, conditioned: Mapping[str, Answer]) -> "TaskRouter":
        """The same router with more answers for calls that carry a condition; its own ones win."""
        return TaskRouter(self.experts, {**conditioned, **self.conditioned})

    def run(self, calls: Sequence[TaskCall], workspace: Workspace) -> tuple[tuple[Artifact, ...], tuple[Problem, ...]]:
        """Answer calls in order.

        Args:
            calls: of one reply.
            workspace: the conversation's media; `call.media` counts in it, None means its latest medium.

        Returns:
            All artifacts in order, and one problem per call that was not answered: no_expert, unavailable,
            missing_medium, missing_regions or expert_error. A failed call doesn't stop the ones after it.
        """
        artifacts: list[Artifact] = []
        problems: list[Problem] = []
        for call in calls:
            made = self._answer(call, workspace)
            if isinstance(made, Problem):
                problems.append(made)
                continue
            artifacts += made
            pictures = tuple(Media(kind=one.kind, source=one.data) for one in made if one.kind == "image")
            workspace = replace(workspace, media=workspace.media + pictures)
        return tuple(artifacts), tuple(problems)

    def describe(self) -> list[dict[str, str]]:
        """One row per task: task, expert, what it needs, its licence, and "ready" or why it isn't."""
        return [
            {
                "task": task,
                "expert": _name(expert),
                "inputs": ", ".join(getattr(expert, "inputs", ())) or "-",
                "licence": getattr(expert, "licence", "-"),
                "status": _unavailable(expert) or "ready",
            }
            for task, expert in sorted(self.experts.items())
        ]

    def _answer(self, call: TaskCall, workspace: Workspace) -> list[Artifact] | Problem:
        expert = self.conditioned.get(call.task) if call.condition is not None else None
        expert = expert or self.experts.get(call.task)
        if expert is None:
            known = sorted(self.experts)
            hint = did_you_mean(call.task, known)
            return _problem(call, "no_expert", f"no expert answers {call.task!r}{hint} Known: {', '.join(known)}")
        fault = _missing(call, workspace, expert)
        if fault is not None:
            return fault
        try:
            return expert(call, workspace)
        except Exception as error:  # whatever an expert does, the rest of the reply must stand
            _log.debug("expert %s failed", _name(expert), exc_info=True)
            said = str(error) if isinstance(error, MMUnifyError) else f"{type(error).__name__}: {error}"
            return _problem(call, "expert_error", f"expert {_name(expert)} failed on the {call.task} call: {said}")


def _missing(call: TaskCall, workspace: Workspace, expert: Answer) -> Problem | None:
    """The first thing that an expert would need and that isn't there."""
    reason = _unavailable(expert)
    if reason is not None:
        return _problem(call, "unavailable", f"expert {_name(expert)} for {call.task!r} cannot run: {reason}")
    for needed in getattr(expert, "inputs", ()):
        if needed == "regions":
            if not call.regions:
                return _problem(call, "missing_regions", f"the {call.task} call names no region: {call.instruction!r}")
        elif not _has_medium(needed, call, workspace):
            where = "in the conversation" if call.media is None else f"at index {call.media}"
            said = f"the {call.task} call needs a medium of kind {needed!r} and there is none {where}"
            return _problem(call, "missing_medium", said)
    return None


def _has_medium(kind: str, call: TaskCall, workspace: Workspace) -> bool:
    media = workspace.media if call.media is None else workspace.media[max(call.media, 0) :][:1]
    return any(medium.kind == kind for medium in media)


def _problem(call: TaskCall, code: str, message: str) -> Problem:
    return Problem(code, message, call.span or (0, 0))


def _unavailable(expert: Answer) -> str | None:
    try:
        return expert.available() if isinstance(expert, Expert) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _name(expert: Answer) -> str:
    return str(getattr(expert, "name", None) or getattr(expert, "__name__", None) or type(expert).__name__)
