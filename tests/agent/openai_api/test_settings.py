"""Where the OpenAI-compatible server may listen, and who may call it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright_agent.openai_api.settings import OpenAISettings, parse_openai
from edgewright_agent.runtime.tls import TlsFiles
from tests.support.openai_servers import board
from tests.support.scripted_engine import Script

TLS = TlsFiles(Path("agent.pem"), Path("agent.key"), Path("ca.pem"))
KEY = "k" * 32


@pytest.mark.parametrize(("key", "tls"), [(None, None), (KEY, None), (None, TLS)])
def test_beyond_this_machine_a_key_and_tls_are_needed(key: str | None, tls: TlsFiles | None) -> None:
    with pytest.raises(
        InputError, match=r"0\.0\.0\.0:8080 is open to other machines: give --openai-key FILE"
    ):
        OpenAISettings(Address("0.0.0.0", 8080), key, tls)
    assert OpenAISettings(Address("0.0.0.0", 8080), KEY, TLS).is_encrypted


def test_on_this_machine_neither_is_needed() -> None:
    for listen in ("127.0.0.1:8080", "[::1]:8080", "localhost:8080", "unix:/run/openai.sock"):
        assert not parse_openai(listen, None, TLS).is_encrypted


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret-s3cret-s3cret\n", encoding="ascii")
    assert parse_openai("127.0.0.1:8080", file, None).key == "s3cret-s3cret-s3cret"
    file.write_text("short", encoding="ascii")
    with pytest.raises(InputError, match="16 to 512 visible characters"):
        parse_openai("unix:/run/openai.sock", file, None)
    with pytest.raises(InputError, match="can't be read"):
        parse_openai("127.0.0.1:8080", tmp_path / "nowhere", None)


async def test_an_address_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError,
            match=rf"127\.0\.0\.1:{port} can't be listened on: Address already in use. .* --openai",
        ):
            async with board(tmp_path, OpenAISettings(Address("127.0.0.1", port)), script=Script()):
                pass
