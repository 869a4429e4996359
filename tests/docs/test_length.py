"""The documentation keeps to the lengths it has set itself, and its sentences can be read once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.markdown import FENCE, ROOT

README_WORDS_MAX = 900
ARCHITECTURE_LINES_MAX = 120
SENTENCE_WORDS_MAX = 30  # 25 as a rule
EDITED = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
EDITED += sorted((ROOT / "docs").rglob("*.md"))


def test_the_readme_is_read_in_minutes() -> None:
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert words <= README_WORDS_MAX


def test_the_architecture_fits_on_two_pages() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= ARCHITECTURE_LINES_MAX


@pytest.mark.parametrize("page", EDITED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_sentence_is_long(page: Path) -> None:
    for sentence in sentences(page):
        assert len(sentence.split()) <= SENTENCE_WORDS_MAX, sentence


def sentences(page: Path) -> list[str]:
    """The sentences of a page's paragraphs and list items, without tables, code, headings and links' targets."""
    text = FENCE.sub("\n", page.read_text(encoding="utf-8"))
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "CODE", text))
    lines = [line for line in text.splitlines() if not line.startswith(("#", "|", "<", ":::", "    "))]
    paragraphs = re.split(r"\n\s*\n|\n(?=[-*\d])", "\n".join(lines))
    return [
        part for paragraph in paragraphs for part in re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))
    ]
