"""The Python that the documentation shows runs, against an agent with a fake engine."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgewright
from tests.support.docs_world import HOST, DocsWorld, docs_world
from tests.support.markdown import ROOT, Block, blocks

SHOWN = [block for block in blocks("python") if block.page.startswith(("README", "docs"))]
OPENAI = [block for block in SHOWN if "from openai" in block.text]
SDK = [block for block in SHOWN if "ew.Board(" in block.text]
OPENAI_PORT = 8080  # as the pages have it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a page's client is not closed


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DocsWorld]:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    with docs_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_every_block_is_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", OPENAI, ids=str)
def test_openais_client_is_answered_as_shown(
    block: Block, world: DocsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    world.agent_options = ("--openai", f"127.0.0.1:{port}")
    world.address(HOST)
    world.serve_the_artifact()
    text = block.text.replace(f":{OPENAI_PORT}/", f":{port}/")
    exec(compile(text, str(block), "exec", dont_inherit=True), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("block", SDK, ids=str)
def test_the_sdk_does_what_is_shown(
    block: Block, world: DocsWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = SimpleNamespace(
        artifact=world.folder / "run/artifact"
    )  # what minutes would make; see tests/end_to_end
    monkeypatch.setattr(edgewright, "build", lambda *_, **__: built)
    exec(block.text.replace(f"{HOST}:7443", world.address(HOST)), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.timeout(600)  # a whole run of mypy where `make check` has left no cache
def test_every_block_has_the_types_of_what_it_calls(tmp_path: Path) -> None:
    for number, block in enumerate(SHOWN):
        (tmp_path / f"block_{number}.py").write_text(f"# {block}\n{block.text}", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_openais_client_and_the_sdk_are_shown() -> None:
    assert OPENAI
    assert SDK


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
