"""Numbers that were heard."""

from mmunify.evaluate.answers import make_prompt
from mmunify.evaluate.metrics.dialled_number import DialledNumberProtocol
from mmunify.evaluate.protocol import Tools
from mmunify.registry import DATASETS
from tests.evaluate.worlds import READER, run, truth_of


def score(speak):
    (node,) = DialledNumberProtocol.data.values()
    world = DATASETS.build({**node, "split": "test", "seed": 5})
    prompts = [make_prompt(world[index]) for index in range(12)]
    assert {prompt.whole.facts["dialling"].snr for prompt in prompts} == {20.0}
    answers = [READER.read(prompt, speak(truth_of(prompt))) for prompt in prompts]
    return DialledNumberProtocol()(answers, Tools(run=run))["exact_match"]


def test_right_numbers():
    assert (score(str).value, score(str).n) == (1.0, 12)


def test_one_wrong_or_missing_digit_is_a_wrong_number():
    assert score(lambda text: text[:-1] + str((int(text[-1]) + 1) % 10)).value == 0.0
    assert score(lambda text: text[:-2]).value == 0.0
