"""Outcomes -> a table: mean and standard deviation over seeds, on the screen, as Markdown, JSON and CSV."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmunify.ablate.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation of `n` numbers; `std` is None for a single one."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int) -> str:
        """`0.812 ± 0.010`."""
        return f"{self.mean:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


def spread(numbers: Sequence[float | None]) -> Spread | None:
    """The spread of the numbers that are there; None without any."""
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What an ablation found.

    Attributes:
        name: of the recipe.
        measures: title -> "protocol/metric", or several whose mean it is.
        outcomes: of all cells so far.
        planned: number of cells.
    """

    name: str
    measures: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    planned: int = 0

    @property
    def arms(self) -> dict[str, list[Outcome]]:
        """Outcomes by arm."""
        names = dict.fromkeys(outcome.arm for outcome in self.outcomes)
        return {name: [outcome for outcome in self.outcomes if outcome.arm == name] for name in names}

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes that are errors."""
        return [outcome for outcome in self.outcomes if outcome.error]

    def columns(self) -> dict[str, Any]:
        """Title -> measure; without `measures`, every metric that was measured."""
        named = {f"{p}/{m}": None for o in self.outcomes for p, metrics in o.values.items() for m in metrics}
        return dict(self.measures) or {name: name for name in named}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Arm -> seeds that went well, errors, trained parameters, seconds, and the spread of every measure."""
        return {arm: self._row(outcomes) for arm, outcomes in self.arms.items()}

    def _row(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        good = [outcome for outcome in outcomes if not outcome.error]
        return {
            "seeds": [outcome.seed for outcome in good],
            "errors": {outcome.seed: outcome.error for outcome in outcomes if outcome.error},
            "trained": next((outcome.trained for outcome in good), None),
            "seconds": spread([outcome.seconds for outcome in good]),
            "measures": {
                title: spread([outcome.value(measure) for outcome in good]) for title, measure in self.columns().items()
            },
        }

    def rows(self) -> list[list[str]]:
        """Titles, then one row of texts per arm."""
        rows = [["arm", "seeds", "learn", "seconds", *self.columns()]]
        for arm, row in self.summary().items():
            runs = f"{len(row['seeds'])}" + (f" ({len(row['errors'])} failed)" if row["errors"] else "")
            trained = "" if row["trained"] is None else f"{row['trained']:,}"
            seconds = "" if row["seconds"] is None else row["seconds"].text(0)
            rows.append([arm, runs, trained, seconds, *(str(s) if s else "" for s in row["measures"].values())])
        return rows

    def markdown(self) -> str:
        """The table, what stands in it, and the errors."""
        titles, *rows = self.rows()
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
        text += "\nMean ± standard deviation over seeds. Learn: parameters that learned in the last stage.\n"
        if len(self.outcomes) < self.planned:
            text += f"\nUnfinished: {len(self.outcomes)} of {self.planned} cells.\n"
        lines = [f"- {outcome.arm}, seed {outcome.seed}: {outcome.error}\n" for outcome in self.failed]
        return text + "".join(["\nFailed:\n\n", *lines] if lines else [])

    def as_csv(self) -> str:
        """One line per cell."""
        columns, file = self.columns(), io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["arm", "seed", "error", "trained", "seconds", *columns])
        for outcome in self.outcomes:
            values = [outcome.value(measure) for measure in columns.values()]
            writer.writerow([outcome.arm, outcome.seed, outcome.error, outcome.trained, outcome.seconds, *values])
        return file.getvalue()

    def as_json(self) -> dict[str, Any]:
        """Summary and all outcomes, as plain data."""
        plain = lambda value: asdict(value) if isinstance(value, Spread) else value  # noqa: E731
        arms = {
            arm: {
                key: {title: plain(s) for title, s in value.items()} if key == "measures" else plain(value)
                for key, value in row.items()
            }
            for arm, row in self.summary().items()
        }
        cells = [asdict(outcome) for outcome in self.outcomes]
        return {"name": self.name, "planned": self.planned, "measures": self.columns(), "arms": arms, "cells": cells}

    def save(self, folder: Path) -> None:
        """Write `table.md`, `table.csv` and `results.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(f"# {self.name}\n\n{self.markdown()}", encoding="utf-8")
        (folder / "table.csv").write_text(self.as_csv(), encoding="utf-8")
        (folder / "results.json").write_text(json.dumps(self.as_json(), indent=1), encoding="utf-8")

    def print(self, console: Any = None) -> None:
        """Print the table and the errors.

        Args:
            console: a `rich.console.Console`; None = the standard output.
        """
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.measure import Measurement
        from rich.table import Table

        console = console or Console()
        titles, *rows = self.rows()
        table = Table(title=f"{self.name}: mean ± standard deviation over seeds", title_justify="left", box=box.SIMPLE)
        for title in titles:
            table.add_column(title, justify="left" if title == "arm" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        needed = Measurement.get(console, console.options.update(width=1000), table).maximum
        console = console if console.width >= needed else Console(width=needed, file=console.file)
        console.print(table)
        for outcome in self.failed:
            console.print(f"[red]failed[/red]: {escape(outcome.arm)}, seed {outcome.seed}: {escape(outcome.error)}")
