"""Stand-ins for a model and its experts: models that know the truth, experts that do the right thing for true calls."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from mmunify.data.digit_world import handwriting
from mmunify.data.digit_world.scene import COLORS, Scene, draw_scene, fit_digit
from mmunify.evaluate.answers import AnswerReader, make_prompt
from mmunify.evaluate.bench import Bench
from mmunify.evaluate.protocol import source_picture
from mmunify.evaluate.reader import box_mask
from mmunify.registry import DATASETS
from mmunify.tokens import DIGIT_TASKS, TokenRegistry
from mmunify.types import Artifact

READER = AnswerReader(tokens=TokenRegistry(tasks=DIGIT_TASKS))
DATA = {"name": "digit_world", "split": "test", "seed": 5}
SAMPLES = 16


@cache
def prompts(task, number=SAMPLES):
    world = DATASETS.build({**DATA, "tasks": [task]})
    return [make_prompt(world[index], index) for index in range(number)]


def truth_of(prompt):
    return READER.write(prompt.truth, prompt.extent)


def answers(task, speak=lambda text: text, number=SAMPLES):
    return [READER.read(prompt, speak(truth_of(prompt))) for prompt in prompts(task, number)]


def drawn(names_and_boxes):
    """A picture of named digits in boxes (0..1), in test handwriting."""
    rng, digits = np.random.default_rng(0), []
    for name, box in names_and_boxes:
        color, digit = name.split()
        if color not in COLORS or len(digit) > 1:
            continue
        sample = handwriting.pick(rng, int(digit), "test")
        digits.append(fit_digit(sample, color, tuple(round(edge * 64) for edge in box)))
    return draw_scene(Scene(digits=tuple(digits)))


def run(answer):
    """Experts: the true result of true calls; the box, or the source as it was, for all others."""
    made = []
    for call in answer.reply.calls:
        right = call in answer.truth.calls
        if call.task == "segment":
            data = answer.facts["mask"] if right else box_mask(call.regions[0].box, (64, 64))
            made.append(Artifact(kind="mask", data=data, call=call, producer="test"))
            continue
        if call.task == "layout_to_image":
            data = drawn([(region.label, region.box) for region in call.regions])
        elif call.task == "generate_image":
            data = answer.facts["target"] if right else drawn([])
        else:
            data = answer.facts["target"] if right else source_picture(answer)
        made.append(Artifact(kind="image", data=data, call=call, producer="test"))
    return made


def bench(speak, tasks, reader=READER):
    """A bench whose model answers `speak(true text, all true texts of the task, index, blank)`."""
    known = [prompt for task in tasks for prompt in prompts(task)]
    truths = {_key(prompt.sample): truth_of(prompt) for prompt in known}

    def respond(asked, blank):
        texts = [truths[_key(sample)] for sample in asked]
        said = [speak(text, texts, index, blank) for index, text in enumerate(texts)]
        return [SimpleNamespace(text=text, predictions={}, finished=True) for text in said]

    return Bench(respond=respond, reader=reader, run=run, data=DATA)


def _key(sample):
    """Samples of different tasks may share their id, not their last words too."""
    return sample.id, len(sample.turns), sample.turns[-1].parts[-1].text
