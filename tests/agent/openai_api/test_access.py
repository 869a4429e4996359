"""Who may call: programs of this machine, and others with the key over TLS; no web pages of other hosts."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import openai
import pytest

from edgewright.address import Address
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_builder.keys.credentials import create_credentials
from tests.support.artifacts import TREE
from tests.support.openai_servers import (
    Board,
    board,
    serve,
)
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:80"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},  # browsers send no Origin with a picture or a script
    ],
)
async def test_without_a_key_web_pages_of_other_hosts_are_refused(
    fake: Board, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url, headers=headers) as http:
        answer = await http.get("/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8080"},
        {"host": "[::1]"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},  # localhost asks 127.0.0.1
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_without_a_key_every_name_of_this_machine_is_answered(
    fake: Board, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url, headers=headers) as http:
        assert (await http.get("/models")).status_code == 200


async def test_where_a_key_is_set_requests_need_it(tmp_path: Path) -> None:
    settings = OpenAISettings(Address("127.0.0.1", 0), key="k" * 32)
    async with board(tmp_path, settings, script=Script()) as running:
        await serve(running.agent, TREE)
        assert await running.client.completions.with_raw_response.create(model="tiny", prompt="hello")
        for key in ("k" * 31, "K" * 32):
            with pytest.raises(openai.AuthenticationError) as error:
                await running.client.with_options(api_key=key).models.list()
            assert error.value.code == "invalid_api_key"
        async with httpx.AsyncClient(base_url=running.url) as http:
            for scheme, status in (
                ("bearer", 200),
                ("BEARER", 200),
                ("Basic", 401),
                ("", 401),
            ):  # RFC 9110, 11.1
                headers = {"authorization": f"{scheme} {'k' * 32}".strip()}
                assert (await http.get("/models", headers=headers)).status_code == status


async def test_programs_on_the_board_may_use_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    async with board(tmp_path, OpenAISettings(path), script=Script()) as running:
        await serve(running.agent, TREE)
        assert running.url == f"unix:{path}"
        assert path.stat().st_mode & 0o007 == 0
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://board/v1") as http:
            answer = await http.post("/completions", json={"prompt": "hello"})
        assert answer.status_code == 200
    assert not path.exists()


async def test_other_machines_need_the_key_and_tls(
    tmp_path: Path, credentials: Path, trusting: ssl.SSLContext
) -> None:
    tls = TlsFiles(credentials / "agent.pem", credentials / "agent.key", credentials / "ca.pem")
    settings = OpenAISettings(Address("0.0.0.0", 0), key="k" * 32, tls=tls)
    async with board(tmp_path, settings, script=Script()) as running:
        await serve(running.agent, TREE)
        url = running.url.replace("0.0.0.0", "localhost")
        assert url.startswith("https://")
        headers = {"authorization": "Bearer " + "k" * 32}
        async with httpx.AsyncClient(verify=trusting, base_url=url) as http:
            answer = await http.post("/completions", json={"prompt": "hello"}, headers=headers)
            assert answer.status_code == 200
            assert (await http.get("/models")).status_code == 401


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder / "keys")
    return folder / "keys"


@pytest.fixture
def trusting(credentials: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(credentials / "ca.pem"))
