"""Pictures from words: what can be read in them?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.metrics._pictures import read_back, read_places
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.statistics import Measure
from mmunify.registry import METRICS


@METRICS.register("generation")
class GenerationProtocol(Protocol):
    """Scores of the pictures that an expert or a de-tokenizer makes.

    `read_back`, `read_back_digits`: names and colours count, places don't;
    `placed`: share of pictures with every digit in its colour at the place that was asked for.
    `placed_single`: the same of prompts that ask for one digit.
    """

    tasks = ("generate_image",)
    by_calls = True

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """An answer without a picture is wrong."""
        plans = [answer.facts["plan"] for answer in answers]
        pictures = [tools.last(answer, "image") for answer in answers]
        wanted = [[item["name"] for item in plan] for plan in plans]
        single = [index for index, plan in enumerate(plans) if len(plan) == 1]
        return {
            **read_back(pictures, wanted, tools.seed),
            "placed": read_places(pictures, plans),
            "placed_single": read_places([pictures[index] for index in single], [plans[index] for index in single]),
        }
