"""Clips: what moves where, and in which order things happen."""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import exact_match
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS

SKILLS = {
    "direction": ["direction"],
    "motions": ["motions"],
    "mover": ["mover"],
    "first_and_last": ["leaves_first", "leaves_last", "enters_first", "enters_last"],
    "order": ["leave_order", "enter_order"],
}
"""Metric -> kinds of questions about clips."""


@METRICS.register("video_question")
class VideoQuestionProtocol(Protocol):
    """Share of right answers to questions about clips.

    - `direction`: which way a digit moves, of four;
    - `motions`: the same of all digits at once;
    - `mover`: which digit moves that way;
    - `first_and_last`: which digit leaves or enters first or last;
    - `order`: in which order all of them do.
    """

    tasks = tuple(f"video_{skill}" for skill in SKILLS)
    data = {f"video_{skill}": {"name": "digit_video", "kinds": kinds} for skill, kinds in SKILLS.items()}

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Every question has exactly one short answer."""
        right = [(answer.facts["kind"], exact_match(answer.reply.text, answer.truth.text)) for answer in answers]
        return {skill: rate([hit for kind, hit in right if kind in kinds]) for skill, kinds in SKILLS.items()}
