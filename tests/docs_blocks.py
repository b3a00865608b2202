"""Fenced blocks of a Markdown page.

A block with a `title="..."` is a file of that name. A comment in the line before a block says that it isn't run:
`<!-- not run: why -->`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file that it is (or ""), its line, and why it isn't run (or "")."""

    page: Path
    language: str
    file: str
    text: str
    line: int
    reason: str

    @property
    def name(self) -> str:
        """Page and line, for messages."""
        return f"{page_name(self.page)}:{self.line}"


def page_name(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The page's blocks in these languages (default: all), in order."""
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', found["info"])
        if not languages or found["language"] in languages:
            line = text.count("\n", 0, found.start("text"))
            file, reason = title[1] if title else "", found["reason"] or ""
            yield Block(page, found["language"], file, found["text"], line, reason)
