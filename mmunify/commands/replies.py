"""Replies as lines on the screen."""

from pathlib import Path

from mmunify.types import Region, Reply


def reply_lines(reply: Reply, out: Path) -> list[str]:
    """A reply as lines to print; its artifacts are saved on the way.

    Args:
        out: folder for the artifacts.
    """
    lines = [reply.text] if reply.text.strip() else []
    lines += [_region_line(region) for region in reply.regions]
    for artifact in reply.artifacts:
        lines.append(f"  {artifact.kind} by {artifact.producer}: {artifact.save(out)}")
    return lines + [f"  problem: {problem}" for problem in reply.problems]


def _region_line(region: Region) -> str:
    where = region.box or region.points or ("a mask" if region.mask is not None else "")
    return f"  {region.label or 'region'}: {where}"
