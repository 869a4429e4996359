"""The page about the OpenAI API: its `curl` commands are answered, and its tables say what the code does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_agent.engine_worker.requests import bodies, fields
from edgewright_agent.openai_api import connections, listener
from edgewright_agent.openai_api.app import ROUTES
from edgewright_agent.openai_api.completions import VALUES_MAX
from edgewright_agent.openai_api.http import body, protocol, request_head
from edgewright_agent.openai_api.responses import request as responses
from edgewright_agent.openai_api.responses.unsupported import IgnoredFields, Reasoning, UnsupportedFields
from edgewright_agent.runtime import file_handles as handles
from tests.docs.test_python_blocks import OPENAI_PORT, free_port
from tests.support.docs_world import HOST, docs_world
from tests.support.markdown import ROOT, blocks_of

PAGE = ROOT / "docs/openai.md"
TEXT = PAGE.read_text(encoding="utf-8")
CURL = [block.text for block in blocks_of(PAGE) if block.text.startswith("curl")]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch, docs_world(tmp_path_factory.mktemp("here")) as world:
        patch.setenv("EDGEWRIGHT_CACHE", str(world.folder / "cache"))
        free = free_port()
        world.agent_options = ("--openai", f"127.0.0.1:{free}")
        world.serve_the_artifact()
        assert world.address(HOST)
        yield free


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURL)
def test_a_curl_command_is_answered(command: str, port: int) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace(f":{OPENAI_PORT}/", f":{port}/")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["object"] in ("chat.completion", "response")
    assert answer["usage"]["total_tokens"]


def test_the_page_shows_curl() -> None:
    assert len(CURL) == 2


def test_the_page_lists_the_routes_that_there_are() -> None:
    shown = re.findall(r"^\| `(GET|POST) (/v1/[^`]+)`", TEXT, re.MULTILINE)
    assert {route.replace("{id}", "{model}"): method for method, route in shown} == ROUTES


def test_the_page_lists_the_fields_of_the_responses_api() -> None:
    table = TEXT.split("### Responses")[1].split("##")[0]
    obeyed, ignored, refused = (listed(table, row) for row in ("obeyed", "ignored", "refused"))
    inner = {"text.format", "text.verbosity", "reasoning.effort", "reasoning.mode"}
    known = set(responses.ResponsesRequest.model_fields) - {"text", "reasoning"} | inner
    assert obeyed | ignored | refused == known
    assert ignored == set(IgnoredFields.model_fields)
    assert refused - inner == set(UnsupportedFields.model_fields)
    assert {"effort", "mode"} < set(Reasoning.model_fields)


def test_the_page_lists_the_fields_of_completions() -> None:
    table = TEXT.split("### Chat completions")[1].split("###")[0]
    harmless, neutral = set(fields.HarmlessFields.model_fields), set(fields.NeutralFields.model_fields)
    known = set(bodies.ChatBody.model_fields) | set(bodies.CompletionBody.model_fields)
    assert listed(table, "obeyed") == known - harmless - neutral
    assert listed(table, "ignored") == harmless
    assert listed(table, "refused") <= neutral


def listed(table: str, row: str) -> set[str]:
    (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", table, re.MULTILINE)
    return set(re.findall(r"`([a-z_.]+)`", cell))


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("head of a request", f"{request_head.HEAD_BYTES_MAX // 1024} KiB, {request_head.FIELDS_MAX} fields"),
        ("body", f"{body.BODY_BYTES_MAX // MIB} MiB"),
        ("JSON values in a body", f"{VALUES_MAX:,}; in Responses {responses.VALUES_MAX:,}"),
        ("all bodies being read or answered", f"{body.BODIES_BYTES_MAX // MIB} MiB"),
        (
            f"bodies over {body.LARGE_BODY_BYTES // 1024} KiB, after such were refused",
            f"{body.REFUSED_BYTES_PER_SECOND // MIB} MiB/s of refused ones",
        ),
        ("TLS handshake", f"{listener.HANDSHAKE_SECONDS:g} s"),
        ("head, from its first byte or from the connection", f"{protocol.HEAD_SECONDS:g} s"),
        ("body", f"{body.BODY_SECONDS:g} s"),
        (
            "stream that its client does not read",
            f"{protocol.UNREAD_BYTES_MAX // 1024} KiB and the kernel's buffers",
        ),
        (f"client that reads less than {protocol.STALL_BYTES // 1024} KiB", f"{protocol.STALL_SECONDS:g} s"),
        ("connection that was answered and is idle", f"{protocol.IDLE_SECONDS:g} s"),
        ("connections", f"{handles.OPENAI_CONNECTIONS_MAX}, at most a quarter"),
        ("requests sent ahead on one connection", f"{protocol.REQUESTS_AHEAD_MAX}"),
    ],
)
def test_the_page_has_the_limits_that_hold(what: str, limit: str) -> None:
    assert f"| {what} | {limit}" in TEXT
    assert connections.peer_max(128) == 64  # half of all


def test_the_page_names_every_recorded_client() -> None:
    names = {
        "ai-sdk": "AI SDK", "aider-chat": "aider", "autogen-ext": "AutoGen", "haystack-ai": "Haystack",
        "langchain-js": "LangChain", "langchain-openai": "LangChain", "llama-index-llms-openai-like": "LlamaIndex",
        "openai-agents": "Agents SDK", "openai-js": "OpenAI's packages", "openai": "OpenAI's packages",
        "pydantic-ai-slim": "Pydantic AI", "semantic-kernel": "Semantic Kernel", "strands-agents": "Strands Agents",
    }  # fmt: skip
    page = TEXT.split("## Clients")[1].lower()
    recordings = Path(ROOT / "tests/agent/openai_api/clients/recordings").glob("*.json")
    assert [file.stem for file in recordings if names.get(file.stem, file.stem).lower() not in page] == []
