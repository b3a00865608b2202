"""What a run did, for people (`report.md`) and programs (`report.json`)."""

import json
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mmunify.train.learns import PartCount

_PACKAGES = ("mmunify", "torch", "lightning", "transformers", "timm")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory() -> dict[str, float]:
    """Largest memory of this process so far, in MiB: resident, and on the GPU if one was used."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def learns_table(counts: Sequence[PartCount], title: str) -> Any:
    """A rich table of trained and frozen parameters per part."""
    from rich.table import Table

    table = Table("part", title=title)
    for column in ("trained", "frozen", "tensors that learn"):
        table.add_column(column, justify="right")
    for count in counts:
        table.add_row(count.part, f"{count.trained:,}", f"{count.frozen:,}", str(count.num_tensors))
    return table


def write_report(folder: Path, recipe: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write `report.json` and `report.md`.

    Args:
        folder: of the run.
        recipe: resolved, as a plain tree.
        records: stage -> what it recorded, in order.

    Returns:
        The readable one.
    """
    facts = {"versions": versions(), "machine": platform.platform(), "stages": records, "recipe": recipe}
    (folder / "report.json").write_text(json.dumps(facts, indent=1))
    lines = ["# Training report", "", *_stage_overview(records)]
    for name, record in records.items():
        lines += ["", f"## Stage {name}", "", *_learns_lines(record), "", *_proof_lines(record["proof"])]
        lines += _sample_lines(record.get("bad_samples", {}))
        if (folder / f"{name}_gates.png").exists():
            lines += ["", f"![Mean gate weights of stage {name}: experts by tasks]({name}_gates.png)"]
    listed = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    lines += ["", "## Versions", "", f"{listed}; {facts['machine']}"]
    lines += ["", "## Recipe", "", "```yaml", OmegaConf.to_yaml(OmegaConf.create(dict(recipe))).rstrip(), "```", ""]
    path = folder / "report.md"
    path.write_text("\n".join(lines))
    return path


def _stage_overview(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| stage | steps | dropped | first loss | final loss | seconds | peak MiB |", "|---" * 7 + "|"]
    for name, r in records.items():
        peak = ", ".join(f"{device} {size:.0f}" for device, size in r["peak_memory"].items())
        numbers = f"{r['first_loss']:.4f} | {r['final_loss']:.4f} | {r['seconds']:.1f} | {peak}"
        lines.append(f"| {name} | {r['steps']} | {r['dropped']} | {numbers} |")
    note = "First and final loss: mean over the first and the last tenth of the steps. Seconds: of the last process."
    return [*lines, "", note]


def _learns_lines(record: Mapping[str, Any]) -> list[str]:
    lines = ["| part | trained | frozen | tensors that learn |", "|---" * 4 + "|"]
    for row in record["learns"]:
        frozen = row["total"] - row["trained"]
        lines.append(f"| {row['part']} | {row['trained']:,} | {frozen:,} | {row['num_tensors']} |")
    last = ", ".join(f"{name} {value:.4g}" for name, value in record["last_metrics"].items())
    return [*lines, "", f"Last step: {last}"]


def _sample_lines(bad: Mapping[str, Any]) -> list[str]:
    if not bad:
        return []
    share = bad["num_bad"] / max(1, bad["num_read"])
    listed = [f"- {sample['id']}: {sample['reason']}" for sample in bad["listed"]]
    return ["", f"Samples: {bad['num_read']:,} read, {bad['num_bad']:,} left out ({share:.2%}).", *listed]


def _proof_lines(proof: Mapping[str, Any]) -> list[str]:
    changed = ", ".join(part for part, has_changed in proof["changed"].items() if has_changed) or "none"
    return [
        f"What learns, over {proof['steps']} steps: {proof['num_learning']} learning tensors, "
        f"{proof['num_learning'] - len(proof['idle'])} of them with a finite gradient other than zero; "
        f"allowed idle: {', '.join(proof['idle']) or 'none'}; changed parts: {changed}; "
        f"{proof['num_frozen']} frozen tensors, {len(proof['moved'])} of them changed."
    ]
