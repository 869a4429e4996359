"""What the documentation's Markdown holds: code blocks, headings and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PROGRAMS = ("edgewright", "edgewright-agent", "make")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str  # the file, from the root
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown file that a reader meets."""
    folders = ("docs", "examples", "benchmarks")
    return [
        *sorted(ROOT.glob("*.md")),
        *(path for name in folders for path in sorted((ROOT / name).rglob("*.md"))),
    ]


def blocks(*languages: str) -> list[Block]:
    """The blocks of code in these languages, page by page."""
    return [block for page in pages() for block in blocks_of(page) if block.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    """Yields every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page.relative_to(ROOT).as_posix(), line, match[1], match[2])


def commands(block: Block) -> list[list[str]]:
    """The words of every command of ours in a shell block."""
    joined = block.text.replace("\\\n", " ")
    lines = [part.strip() for line in joined.splitlines() for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines if line.split(maxsplit=1)[:1] and ours(line)]
    return [command for command in words if command]


def ours(line: str) -> bool:
    """Whether a line of shell starts one of our programs."""
    return line.split(maxsplit=1)[0] in PROGRAMS


def inline_commands(page: Path) -> list[str]:
    """Code spans that start with one of our programs and an option or argument."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [span for span in re.findall(r"`([^`\n]+)`", text) if " " in span and ours(span)]


def links(page: Path) -> list[str]:
    """The targets of a page's links that stay in the repository."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [
        target for target in LINK.findall(text) if "://" not in target and not target.startswith("mailto:")
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+\s+(.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
