"""The marked blocks of a page: commands that are run, files that are saved, and the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    flags=re.M | re.S,
)
_FILE = re.compile(r"^<!-- file: (?P<name>\S+) = (?P<source>\S+?)(?:, not shown)? -->$", flags=re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: the comment before it, "" without one: `run`, `run: beside`, `run: beside, until "x"`,
            `file: NAME` or `not run: WHY`.
        language: as fenced.
        text: inside.
    """

    mark: str
    language: str
    text: str

    @property
    def is_command(self) -> bool:
        """Whether it is for a terminal."""
        return self.language in ("sh", "console", "bash")

    @property
    def file(self) -> str:
        """Name that it is saved under, "" for none."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.mark == "run" or self.is_beside

    @property
    def is_beside(self) -> bool:
        """Whether it goes on while the page does."""
        return self.mark.startswith("run: beside")

    @property
    def until(self) -> str:
        """What it says when it is ready."""
        found = re.search(r'until "([^"]+)"', self.mark)
        return found[1] if found else ""


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order, and every file that it shows."""

    def shown(found: re.Match[str]) -> str:
        text = (ROOT / found["source"]).read_text()
        return f"<!-- file: {found['name']} -->\n```python\n{text}```"

    return [
        Block(
            mark=found["mark"] or "",
            language=found["language"],
            text=re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M),
        )
        for found in _BLOCK.finditer(_FILE.sub(shown, page.read_text()))
    ]


def pages() -> list[Path]:
    """Every page, by name."""
    return sorted(DOCS.rglob("*.md"))
