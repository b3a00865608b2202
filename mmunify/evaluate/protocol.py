"""The contract of a protocol: answers to the samples of some tasks -> measures. One protocol per file of `metrics/`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmunify.data.pictures import read_picture
from mmunify.evaluate.answers import Answer
from mmunify.evaluate.statistics import Measure
from mmunify.types import Artifact

Run = Callable[[Answer], Sequence[Artifact]]
"""An answer -> what the experts and de-tokenizers make of it; failures leave nothing behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What protocols may use: `run` carries an answer's calls out; `seed` is of every bootstrap."""

    run: Run
    seed: int = 0

    def last(self, answer: Answer, kind: str) -> np.ndarray | None:
        """The last artifact of a kind ("mask", "image"), or None."""
        made = [artifact.data for artifact in self.run(answer) if artifact.kind == kind]
        return made[-1] if made else None


class Protocol(ABC):
    """Measures one skill.

    Attributes:
        tasks: names of the tasks whose answers it reads; empty = all that are evaluated.
        data: task -> node of the data set that it comes from, for tasks that the evaluated one doesn't have; models
            that cannot read its media are not asked.
        by_calls: whether its result comes from calls, so that true and random calls are scored beside the model's.
    """

    tasks: ClassVar[tuple[str, ...]] = ()
    data: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    by_calls: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, answers: Sequence[Answer], tools: Tools) -> Mapping[str, Measure]:
        """Metric name -> measure. Every answer counts: one that is missing or can't be read is wrong."""


def source_picture(answer: Answer) -> Any:
    """The picture that the user gave last, uint8 [H W 3]."""
    pictures = [medium for medium in answer.prompt.media if medium.kind == "image"]
    return np.asarray(read_picture(pictures[-1].source))
