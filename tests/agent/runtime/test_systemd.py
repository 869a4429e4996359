"""What systemd is told, and that the unit file is one."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.errors import OutsideError
from edgewright_agent.runtime import systemd
from edgewright_agent.runtime.file_handles import (
    grpc_connections_max,
    metrics_connections_max,
    openai_connections_max,
)
from edgewright_agent.server import run_agent
from tests.agent.conftest import settings_for
from tests.support.agent_process import serving

UNIT = Path(__file__).parents[3] / "agent" / "systemd" / "edgewright-agent.service"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield bound


def test_the_agent_says_that_it_lives_as_long_as_its_loop_turns(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    with serving(tmp_path / "store", "--listen", "127.0.0.1:0", "--insecure"):
        assert manager.recv(100) == b"READY=1"
        assert [manager.recv(100) for _ in range(5)] == [b"WATCHDOG=1"] * 5


def bound_to(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind(path)
    bound.settimeout(20)
    return bound


def test_an_outage_of_systemd_is_logged_once(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(manager.getsockname())
    systemd.notify("READY=1")
    Path(path).unlink()
    systemd.notify("WATCHDOG=1")
    systemd.notify("WATCHDOG=1")
    with bound_to(path) as again:
        systemd.notify("WATCHDOG=1")
        assert again.recv(100) == b"WATCHDOG=1"
    systemd.notify("STOPPING=1")
    systemd.notify("STOPPING=1")
    assert [record.getMessage() for record in caplog.records] == [
        f"systemd can't be told WATCHDOG=1 at {path}: No such file or directory",
        f"systemd can't be told STOPPING=1 at {path}: Connection refused",
    ]


async def test_a_watchdog_that_could_not_be_fed_is_fed_again(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    path = str(manager.getsockname())
    systemd.notify("READY=1")
    Path(path).unlink()
    async with systemd.watched():
        while not caplog.records:
            await asyncio.sleep(0.01)
        with bound_to(path) as again:
            assert await asyncio.to_thread(again.recv, 100) == b"WATCHDOG=1"


def test_an_agent_serves_where_nobody_listens_to_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "left over from elsewhere"))
    with serving(tmp_path / "store", "--listen", "127.0.0.1:0", "--insecure") as agent:
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(20) == 0


async def test_a_loop_that_hangs_says_nothing(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    async with systemd.watched():
        await asyncio.sleep(0.05)
        manager.setblocking(False)
        drained = list(iter(lambda: received(manager), b""))
        assert drained
        subprocess.run(["sleep", "0.2"], check=True)
        assert received(manager) == b""
        await asyncio.sleep(0.05)
        assert received(manager) == b"WATCHDOG=1"


def received(manager: socket.socket) -> bytes:
    try:
        return manager.recv(100)
    except BlockingIOError:
        return b""


async def test_engines_have_their_sockets_where_systemd_says_so_also_without_a_usable_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "run"
    given.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", unusable)
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{given}:/run/other")
    async with run_agent(settings_for(tmp_path / "store")):
        assert len(list(given.iterdir())) == 1
    assert list(given.iterdir()) == []


async def test_an_agent_without_a_folder_for_sockets_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", unusable)
    with pytest.raises(OutsideError, match="No folder for the engines' sockets"):
        async with run_agent(settings_for(tmp_path / "store")):
            raise AssertionError("it started")


def unusable() -> str:
    raise FileNotFoundError("No usable temporary directory found")


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [("", "", None), ("60000000", "", 60.0), ("60000000", "1", None), ("soon", "", None), ("0", "", None)],
)
def test_a_watchdog_that_is_another_processs_is_not_fed(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, process: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", process or str(os.getpid()))
    assert systemd.watchdog_seconds() == seconds


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit_file(tmp_path: Path) -> None:
    program = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text())
    (tmp_path / UNIT.name).write_text(program)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_gives_file_handles_for_every_connection_that_is_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (limit,) = re.findall(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.MULTILINE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (int(limit), int(limit)))
    connections = grpc_connections_max() + openai_connections_max() + metrics_connections_max()
    assert int(limit) >= 4 * connections  # an upload holds a blob, a request its engine's socket
