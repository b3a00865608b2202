"""Questions about clips, by skill."""

from collections import Counter

import pytest

from mmunify.data.digit_world.clip_questions import CLIP_KINDS
from mmunify.evaluate.answers import make_prompt
from mmunify.evaluate.metrics.video_question import SKILLS, VideoQuestionProtocol
from mmunify.evaluate.protocol import Tools
from mmunify.registry import DATASETS
from tests.evaluate.worlds import READER, run, truth_of


@pytest.fixture(scope="module")
def prompts():
    worlds = [DATASETS.build({**node, "split": "test", "seed": 5}) for node in VideoQuestionProtocol.data.values()]
    return [make_prompt(world[index]) for world in worlds for index in range(8)]


def score(prompts, speak):
    answers = [READER.read(prompt, speak(truth_of(prompt))) for prompt in prompts]
    return VideoQuestionProtocol()(answers, Tools(run=run))


def test_every_kind_belongs_to_one_skill():
    assert sorted(kind for kinds in SKILLS.values() for kind in kinds) == sorted(CLIP_KINDS)


def test_right_answers(prompts):
    measures = score(prompts, str)
    assert {name: (m.value, m.n) for name, m in measures.items()} == dict.fromkeys(SKILLS, (1.0, 8))


def test_skills_are_scored_apart(prompts):
    measures = score(prompts, lambda text: f"{text.split('[')[0]}[left]" if text.count("[") == 1 else text)
    wrong = Counter(p.whole.facts["kind"] for p in prompts if (t := truth_of(p)).count("[") == 1 and t[-6:] != "[left]")
    assert wrong["direction"] > 0
    assert {skill: 8 - 8 * measures[skill].value for skill in SKILLS} == {skill: wrong[skill] for skill in SKILLS}
