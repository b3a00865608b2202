"""Pictures from words: what can be read in them?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.metrics._pictures import read_back
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.statistics import Measure
from mmunify.registry import METRICS


@METRICS.register("generation")
class GenerationProtocol(Protocol):
    """`read_back` and `read_back_digits` of the pictures that an expert or a de-tokenizer makes."""

    tasks = ("generate_image",)
    by_calls = True

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Names and colours count; places don't."""
        wanted = [[item["name"] for item in answer.facts["plan"]] for answer in answers]
        return read_back([tools.last(answer, "image") for answer in answers], wanted, tools.seed)
