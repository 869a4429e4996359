"""The Unix socket: it is never taken over from a program that answers, and only its owner removes it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgewright.errors import InputError
from edgewright_agent.openai_api.settings import OpenAISettings
from tests.support.artifacts import TREE
from tests.support.openai_servers import board, serve
from tests.support.raw_http import MODELS, talk
from tests.support.scripted_engine import Script


async def test_a_second_agent_on_the_same_socket_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    settings = OpenAISettings(tmp_path / "openai.sock")
    async with board(tmp_path / "one", settings, script=Script()) as first:
        await serve(first.agent, TREE)
        with pytest.raises(InputError, match=r"openai\.sock is in use by another program; stop that one"):
            async with board(tmp_path / "two", settings, script=Script()):
                pass
        assert (await talk(first, MODELS)).status == 200
    assert list(tmp_path.glob("openai.sock*")) == []


async def test_the_socket_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        with pytest.raises(InputError, match="is in use by another program"):
            async with board(tmp_path, OpenAISettings(path), script=Script()):
                pass
        assert path.is_socket()


async def test_a_socket_that_a_dead_program_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with board(tmp_path, OpenAISettings(path), script=Script()) as running:
        await serve(running.agent, TREE)
        assert (await talk(running, MODELS)).status == 200
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me", encoding="utf-8")
    with pytest.raises(InputError, match=r"notes\.txt is there and is no socket"):
        async with board(tmp_path, OpenAISettings(path), script=Script()):
            pass
    assert path.read_text(encoding="utf-8") == "keep me"


async def test_a_socket_that_took_the_place_of_ours_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    async with board(tmp_path, OpenAISettings(path), script=Script()):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.is_socket()


async def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "nowhere/openai.sock"
    with pytest.raises(InputError, match=r"can't be listened on: No such file or directory"):
        async with board(tmp_path, OpenAISettings(path), script=Script()):
            pass
