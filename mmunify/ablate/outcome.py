"""What came out of a cell, on disk and in memory."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

Values = dict[str, dict[str, dict[str, float]]]
"""Protocol -> metric -> {value, n, low, high}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of a cell.

    Attributes:
        arm, seed: of the cell.
        fingerprint: of the cell; another one means that the outcome is out of date.
        run: folder of its last stage's run, relative to the ablation's.
        trained: parameters that learned in its last stage; None where the seed reaches no stage.
        seconds: that the stages from `vary` on took.
        values: measured.
        error: why there are none; "" if all went well.
        trace: of the error.
    """

    arm: str
    seed: int
    fingerprint: str
    run: str = ""
    trained: int | None = None
    seconds: float | None = None
    values: Values = field(default_factory=dict)
    error: str = ""
    trace: str = ""

    def save(self, file: Path) -> None:
        """Write aside, then rename."""
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self), indent=1))
        os.replace(aside, file)

    def value(self, measure: str | list[str]) -> float | None:
        """The value of "protocol/metric", or the mean of several; None where one is missing."""
        names = [measure] if isinstance(measure, str) else measure
        found = [self._value(name) for name in names]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None

    def _value(self, name: str) -> float | None:
        protocol, _, metric = name.partition("/")
        return self.values.get(protocol, {}).get(metric, {}).get("value")


def load_outcome(file: Path, fingerprint: str) -> Outcome | None:
    """The outcome of a cell that went well before and hasn't changed since; None = it has to be run."""
    if not file.is_file():
        return None
    outcome = Outcome(**json.loads(file.read_text()))
    return None if outcome.error or outcome.fingerprint != fingerprint else outcome
