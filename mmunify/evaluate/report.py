"""Results -> a table on the screen, a JSON file, a Markdown table."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmunify.evaluate.run import Results
from mmunify.evaluate.statistics import Measure

COLUMNS = {"": "model", "_blank": "blanked media", "_truth": "true calls", "_random": "random calls"}
"""Ending of a metric's name -> what stands over its column."""

LEAST_WIDTH = 116
"""Of the printed table, in characters: narrower consoles wrap its lines, they don't cut the numbers off."""


def as_json(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """`{protocol: {metric: {value, n, low, high}}}`."""
    return {name: {metric: m.as_dict() for metric, m in metrics.items()} for name, metrics in results.items()}


def save_json(results: Results, path: str | Path) -> Path:
    """Write `as_json` to a file, whose folder is made if need be."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(as_json(results), indent=2) + "\n")
    return target


def _base(metric: str, metrics: Mapping[str, Measure]) -> str:
    """The metric that a baseline belongs to; the metric itself where it is none."""
    for ending in COLUMNS:
        if ending and metric.endswith(ending) and metric.removesuffix(ending) in metrics:
            return metric.removesuffix(ending)
    return metric


def format_measure(metric: str, measure: Measure, interval: bool = True) -> str:
    """`0.912 [0.86, 0.95]`; decibels with one decimal."""
    digits = (1, 1) if "psnr" in metric else (3, 2)
    text = f"{measure.value:.{digits[0]}f}"
    return f"{text} [{measure.low:.{digits[1]}f}, {measure.high:.{digits[1]}f}]" if interval else text


def table_rows(results: Results) -> Iterator[list[str]]:
    """Rows of protocol, metric, n, and one cell per column of `COLUMNS`; the interval is that of the model."""
    for protocol, metrics in results.items():
        for name in dict.fromkeys(_base(metric, metrics) for metric in metrics):
            cells = [metrics.get(name + ending) for ending in COLUMNS]
            shown = [format_measure(name, m, interval=i == 0) if m else "" for i, m in enumerate(cells)]
            yield [protocol, name, str(metrics[name].n), *shown]


def print_table(results: Results, console: Any = None) -> None:
    """Print all results, the baselines beside the model.

    Args:
        results: of `evaluate`.
        console: a `rich.console.Console`; None = the standard output.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    console = console if console.width >= LEAST_WIDTH else Console(width=LEAST_WIDTH, file=console.file)
    table = Table(title="Evaluation: value [95 % interval]", title_justify="left", box=box.SIMPLE, padding=(0, 1))
    for title in ("protocol", "metric", "n", *COLUMNS.values()):
        table.add_column(title, justify="left" if title in ("protocol", "metric") else "right", no_wrap=True)
    last = ""
    for protocol, *cells in table_rows(results):
        if last and protocol != last:
            table.add_section()
        table.add_row("" if protocol == last else protocol, *cells)
        last = protocol
    console.print(table)


def markdown_table(results: Results, before: Results | None = None) -> str:
    """All results as a Markdown table; with `before`, the model's value before training stands beside the one after."""
    titles = ["protocol", "metric", "n", *(["before training"] if before is not None else []), *COLUMNS.values()]
    lines = [titles, ["---"] * len(titles)]
    for protocol, metric, n, *cells in table_rows(results):
        if before is not None:
            then = before.get(protocol, {}).get(metric)
            cells.insert(0, format_measure(metric, then) if then else "")
        lines.append([protocol, metric, n, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
