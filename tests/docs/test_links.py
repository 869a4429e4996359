"""Links and paths of the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, anchors, links, pages

# Made when the site is built.
GENERATED = {f"docs/reference/{name}.md" for name in ("sdk", "cli", "wire", "recipe", "errors", "boards")}
BASES = (ROOT, ROOT / "builder/edgewright_builder")  # ARCHITECTURE names rooms from their half
SOURCES = (
    "agent/",
    "builder/",
    "sdk/",
    "device_profiles/",
    "protos/",
    "scripts/",
    "tests/",
    "docs/",
    "examples/",
)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        name = path.relative_to(ROOT).as_posix()
        assert path.exists() or name in GENERATED, f"{page.name} links to {link}"
        if anchor and name not in GENERATED:
            assert anchor in anchors(path), f"{page.name}: {target} has no heading {anchor}"
            assert anchor.isascii(), f"{page.name}: MkDocs leaves letters out of {anchor} that GitHub keeps"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_named_in_a_sentence_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # history names what was there
    text = page.read_text(encoding="utf-8")
    for span in re.findall(r"`([\w./-]+)`", text):
        if span.startswith(SOURCES) and "NAME" not in span:
            assert any((base / span).exists() for base in BASES), f"{page.name} names {span}"


def test_every_record_of_a_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("0*.md")}
    assert records == set(links(folder / "index.md"))
    assert [name[:4] for name in sorted(records)] == [f"{n:04d}" for n in range(1, len(records) + 1)]
