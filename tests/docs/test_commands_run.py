"""The commands that the documentation shows are run, page by page, against agents with a fake engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgewright_agent.cli import app as agent_app
from tests.support.docs_world import DocsWorld, docs_world, run
from tests.support.markdown import ROOT, blocks_of, commands

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# What takes minutes, another program or for ever; the option test reads these, and other tests run them.
NOT_RUN = (
    r"make\b",  # by hand; `make demo` is the road itself
    r"edgewright-agent serve\b",  # the agents of these pages are it
    r"edgewright build\b",  # tests/end_to_end/test_build.py
    r"edgewright export\b",  # tests/builder/python_api/test_exporting.py
    r"edgewright check-teacher\b",  # tests/builder/cli: the models shown are fetched from the hub
    r"edgewright study\b",  # tests/end_to_end/test_study.py
    r"edgewright report\b",  # tests/end_to_end/test_build.py
    r"edgewright bench --local\b",  # tests/builder/bench
    r"edgewright bench .*--compare run\b",  # tests/builder/bench
    r"edgewright bench one\.json",  # tests/builder/bench
    r"edgewright keys create\b",  # how the world begins
)
SHOWN = {
    page: [words for block in blocks_of(ROOT / page) if block.language == "sh" for words in commands(block)]
    for page in PAGES
}
RUN = {
    page: [words for words in shown if not re.match("|".join(NOT_RUN), " ".join(words))]
    for page, shown in SHOWN.items()
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocsWorld]:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "here"
    folder.mkdir()
    with docs_world(folder) as world:
        yield world


@pytest.mark.parametrize("page", [page for page, lines in RUN.items() if lines])
def test_the_commands_of_a_page_do_what_the_page_says(page: str, world: DocsWorld) -> None:
    prepare(page, world)
    for words in RUN[page]:
        line = " ".join(words)
        if words[0] == "edgewright-agent":
            done = CliRunner().invoke(agent_app, words[1:])
            assert done.exit_code in (0, 1), line  # 1: the doctor finds something on this machine
            continue
        done = run([world.here(word) for word in words[1:]])
        assert done.exit_code == 0, f"{line}: {done.exception or done.output}"


def test_most_commands_are_run() -> None:
    shown, run_here = (sum(map(len, pages.values())) for pages in (SHOWN, RUN))
    assert run_here >= 0.6 * shown


def prepare(page: str, world: DocsWorld) -> None:
    """Brings about what the reader of this page has done before."""
    for block in blocks_of(ROOT / page):
        if block.language == "yaml" and "devices:" in block.text:
            world.write_fleet(block.text)
    to_the_board = [words for words in RUN[page] if "board.local:7443" in words]
    if to_the_board and not any(words[1] == "push" for words in to_the_board):
        world.serve_the_artifact()
