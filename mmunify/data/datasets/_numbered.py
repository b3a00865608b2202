"""What the drawn data sets share: a number of samples that was asked for, and the refusal of numbers beyond it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import ClassVar

from mmunify.data.digit_world.conversations import Conversations
from mmunify.types import Sample


class Numbered(ABC):
    """A data set whose samples are drawn from their number, so that it can have any length.

    Attributes:
        noun: what messages call it ("a digit world").
        task: of all its samples, where they have the same.
        length: number of samples.
    """

    noun: ClassVar[str]
    task: str = ""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`.

        Raises:
            IndexError: outside 0..length - 1.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.noun} with {self.length} samples")
        return self.make(index)

    @abstractmethod
    def make(self, index: int) -> Sample:
        """Draw sample number `index`, the same each time."""

    def by_task(self) -> Mapping[str, tuple["Numbered", float]]:
        """Task -> a data set with samples of that task alone, and its share of this one."""
        return {self.task: (self, 1.0)}


class Drafted(Numbered):
    """A data set of the digit world's conversations.

    Attributes:
        drafts: the conversations.
        prefix: of the samples' ids.
    """

    def __init__(self, drafts: Conversations, prefix: str, length: int) -> None:
        super().__init__(length)
        self.drafts, self.prefix = drafts, prefix

    def by_task(self) -> Mapping[str, tuple["Numbered", float]]:
        """Task -> a data set with conversations of that task alone, and its share of this one."""
        return {
            task: (self._only(task, drafts, share), share) for task, (drafts, share) in self.drafts.by_task().items()
        }

    def _only(self, task: str, drafts: Conversations, share: float) -> "Drafted":
        part = copy(self)
        part.length = max(1, round(share * self.length))
        part.drafts, part.prefix = drafts, f"{self.prefix}-{task}"
        return part
