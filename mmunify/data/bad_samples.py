"""Samples that can't be used: left out, counted, listed; too many of them end the run."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmunify.errors import DataError

_log = logging.getLogger(__name__)

ALWAYS_ALLOWED = 10
"""So many bad samples never end a run, unless none is allowed: one in the first hundred says little."""

MAX_LISTED = 20
"""So many bad samples are kept with their reasons; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSample:
    """A sample that can't be used.

    Attributes:
        number: of the sample in the run whose place it had.
        id: its own, or where it lies when it couldn't be read at all.
        reason: why it can't be used.
    """

    number: int
    id: str
    reason: str


class BadSamples:
    """The bad samples of a stage so far, over all processes.

    Args:
        limit: largest share of bad ones among the samples read so far; 0 = the first one ends the run.
    """

    def __init__(self, limit: float = 0.01) -> None:
        self.limit = limit
        self.num_read, self.num_bad = 0, 0
        self.listed: list[BadSample] = []

    def add(self, num_good: int, bad: Sequence[BadSample]) -> list[BadSample]:
        """Count samples; returns those that are listed from now on.

        Raises:
            DataError: there are more bad ones than the limit allows.
        """
        self.num_read += num_good + len(bad)
        self.num_bad += len(bad)
        new: dict[str, BadSample] = {}
        for sample in bad:
            if all(sample.id != known.id for known in self.listed):
                new.setdefault(sample.id, sample)
        listed = list(new.values())[: MAX_LISTED - len(self.listed)]
        self.listed += listed
        allowed = max(ALWAYS_ALLOWED, self.limit * self.num_read) if self.limit else 0
        if self.num_bad > allowed:
            raise DataError(
                f"{self.num_bad} of {self.num_read} samples can't be used, more than bad_samples={self.limit:g} allows:"
                f"\n{self._lines(self.listed)}\nMend them, take them out, or raise the stage's bad_samples"
            )
        return listed

    def refuse(self, bad: Sequence[BadSample]) -> None:
        """End the run where neither a sample nor any that was to take its place can be used.

        Raises:
            DataError: always; the message has all of them.
        """
        raise DataError(
            f"none of {len(bad)} samples drawn one after the other can be used:\n{self._lines(bad)}\n"
            "Look at the data set: the place of its media, its kinds of media, or max_length may be wrong"
        )

    def warn(self, bad: Sequence[BadSample]) -> None:
        """Log bad samples."""
        for sample in bad:
            _log.warning("left out %s: %s", sample.id, sample.reason)

    def state_dict(self) -> dict[str, Any]:
        """The counts and the list, as plain data."""
        return {"num_read": self.num_read, "num_bad": self.num_bad, "listed": [asdict(one) for one in self.listed]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.num_read, self.num_bad = state["num_read"], state["num_bad"]
        self.listed = [BadSample(**one) for one in state["listed"]]

    def _lines(self, bad: Sequence[BadSample]) -> str:
        return "\n".join(f"  {sample.id}: {sample.reason}" for sample in bad)
