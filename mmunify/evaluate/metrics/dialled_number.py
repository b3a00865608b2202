"""Sounds: was the number heard?"""

from collections.abc import Mapping, Sequence

from mmunify.evaluate.answers import Answer
from mmunify.evaluate.protocol import Protocol, Tools
from mmunify.evaluate.scores import exact_match
from mmunify.evaluate.statistics import Measure, rate
from mmunify.registry import METRICS

SNR = 20.0
"""Signal to noise of the tested sounds, in dB."""


@METRICS.register("dialled_number")
class DialledNumberProtocol(Protocol):
    """`exact_match`: share of numbers that are right in every digit, at 20 dB signal to noise."""

    tasks = ("dialled_number",)
    data = {"dialled_number": {"name": "digit_sound", "kinds": ["number"], "snr": [SNR, SNR]}}

    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Compare the digits of every answer with those that were dialled."""
        return {"exact_match": rate([exact_match(answer.reply.text, answer.truth.text) for answer in answers])}
