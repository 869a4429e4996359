"""The agent as users run it: a process, its exit codes, its one line, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc.aio
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewright import __version__
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from edgewright_agent.cli import main
from tests.support.agent_process import COMMAND, serving
from tests.support.artifacts import RELEASE_KEY, TIMEOUT_SECONDS, TREE, activate, make_artifact, push

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "optuna",
    "numpy",
    "gptqmodel",
    "onnxruntime",
    "onnxruntime_genai",
    "edgewright_builder",
)
# Asked for by an option or a command; until then a board does not pay for them.
ON_DEMAND = (
    "httpx",
    "uvicorn",
    "prometheus_client",
    "opentelemetry",
    "rich",
    "edgewright_agent.doctor.checks",
)


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    path = tmp_path / "release.pub"
    key = RELEASE_KEY.public_key()
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def insecure(trusted: Path) -> tuple[str, ...]:
    return ("--listen", "127.0.0.1:0", "--insecure", "--trust", str(trusted), "--probation", "0")


async def generated(channel: grpc.aio.Channel) -> list[int]:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(prompt="hello", max_tokens=8)
    call = stub.Generate(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    return [delta.token async for event in call for delta in event.deltas]


async def test_a_release_is_served_by_an_engine_process_and_again_after_a_kill(
    tmp_path: Path, trusted: Path
) -> None:
    store = tmp_path / "store"
    artifact = make_artifact({**TREE, "engine/fake.json": b"{}"})
    with serving(store, *insecure(trusted)) as agent:
        async with grpc.aio.insecure_channel(agent.address) as channel:
            steps = await activate(channel, await push(channel, artifact))
            assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED, steps[-1]
            tokens = await generated(channel)
        agent.process.send_signal(signal.SIGKILL)
        agent.process.wait()
    assert len(tokens) == 8
    with serving(store, *insecure(trusted)) as agent:
        async with grpc.aio.insecure_channel(agent.address) as channel:
            stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
            device = await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
            assert device.active_release.hex() == artifact.digest
            assert await generated_soon(channel) == tokens
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(timeout=20) == 0


async def generated_soon(channel: grpc.aio.Channel) -> list[int]:
    """Generates as soon as the restarted engine answers."""
    while True:
        try:
            return await generated(channel)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.02)  # the engine needs the processor more than we do


def test_ctrl_c_stops_the_agent_cleanly_and_systemd_is_told(
    tmp_path: Path, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with serving(tmp_path / "store", *insecure(trusted)) as agent:
            assert systemd.recv(100) == b"READY=1"
            agent.process.send_signal(signal.SIGINT)
            _, errors = agent.process.communicate(timeout=20)
            assert agent.process.returncode == 0
            assert errors == ""
        assert systemd.recv(100) == b"STOPPING=1"


async def test_silent_connections_to_the_openai_api_leave_file_handles_for_everybody_else(
    tmp_path: Path, trusted: Path
) -> None:
    path = tmp_path / "openai.sock"
    options = (*insecure(trusted), "--openai", f"unix:{path}")
    with serving(tmp_path / "store", *options, handles=64) as agent, contextlib.ExitStack() as silent:
        for _ in range(200):
            client = silent.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(path))
        async with grpc.aio.insecure_channel(agent.address) as channel:
            artifact = make_artifact({**TREE, "engine/fake.json": b"{}"})
            await activate(channel, await push(channel, artifact))
            assert len(await generated(channel)) == 8
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://board/v1") as http:
            answer = await http.post(
                "/completions", json={"prompt": "hello", "max_tokens": 3, "ignore_eos": True}
            )
            assert answer.json()["usage"]["completion_tokens"] == 3


async def test_the_openai_api_is_served_where_it_was_asked_for(tmp_path: Path, trusted: Path) -> None:
    path = tmp_path / "openai.sock"
    with serving(tmp_path / "store", *insecure(trusted), "--openai", f"unix:{path}") as agent:
        async with grpc.aio.insecure_channel(agent.address) as channel:
            artifact = make_artifact({**TREE, "engine/fake.json": b"{}"})
            await activate(channel, await push(channel, artifact))
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://board/v1") as http:
            models = await http.get("/models")
            assert [model["id"] for model in models.json()["data"]] == ["tiny"]
            answer = await http.post(
                "/completions", json={"prompt": "hello", "max_tokens": 3, "ignore_eos": True}
            )
            assert answer.json()["usage"]["completion_tokens"] == 3
        agent.process.send_signal(signal.SIGTERM)
        _, errors = agent.process.communicate(timeout=20)
    assert errors == f"OpenAI-compatible API on unix:{path}\n"
    assert not path.exists()


def fails_with(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """The one sentence of a command that exits with code 2."""
    monkeypatch.setattr(sys, "argv", ["edgewright-agent", *options])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("edgewright-agent: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_port_in_use_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("--profile", "raspberry-pi-5-8gb", "--store", str(tmp_path / "store"), "--insecure")
        says = fails_with(capsys, monkeypatch, "serve", *options, "--listen", address)
    assert f"{address} can't be listened on: Address already in use" in says
    assert not (tmp_path / "store").exists()


def test_one_address_for_two_services_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--profile", "raspberry-pi-5-8gb", "--store", str(tmp_path / "store"), "--insecure")
    says = fails_with(capsys, monkeypatch, "serve", *options, "--listen", address, "--metrics", address)
    assert f"{address} can't be listened on any more" in says
    assert "--metrics names it, too" in says


@pytest.mark.parametrize("url", ["collector", "ftp://host", "http://", "http://host:99999", "http://[host"])
def test_a_collector_s_address_that_is_none_is_named(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--profile", "raspberry-pi-5-8gb", "--store", str(tmp_path / "store"), "--insecure")
    says = fails_with(capsys, monkeypatch, "serve", *options, "--listen", "127.0.0.1:0", "--otlp", url)
    assert says.startswith(f"edgewright-agent: --otlp is {url!r}; give a collector's address")


def test_a_store_that_is_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "store"
    file.touch()
    options = ("--profile", "raspberry-pi-5-8gb", "--listen", "127.0.0.1:0", "--insecure")
    says = fails_with(capsys, monkeypatch, "serve", "--store", str(file), *options)
    assert says == f"edgewright-agent: {file} is a file; give a folder.\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--profile", "orin-nano-8g", "--insecure"), "did you mean"),
        (("--profile", "raspberry-pi-5-8gb"), "--tls-cert, --tls-key and --tls-ca together"),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--listen", "0.0.0.0:0"), "loopback only"),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--budget", "lots"), "is not a size"),
        (
            ("--profile", "raspberry-pi-5-8gb", "--insecure", "--budget", "9GiB"),
            "has 8.00 GiB of memory; give less",
        ),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--budget", "0B"), "is less than a byte"),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--store-quota", "0B"), "is less than a byte"),
        (
            ("--profile", "raspberry-pi-5-8gb", "--insecure", "--store-reserve", "1048576TiB"),
            "nothing could be stored",
        ),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--trust", "/nowhere"), "can't be read"),
        (("--profile", "raspberry-pi-5-8gb", "--insecure", "--listen", "here"), "is not an address"),
        (
            ("--profile", "raspberry-pi-5-8gb", "--insecure", "--openai", "0.0.0.0:0"),
            "is open to other machines",
        ),
        (
            ("--profile", "raspberry-pi-5-8gb", "--insecure", "--openai-key", "key"),
            "--openai-key has no effect without --openai",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    says: str,
) -> None:
    assert says in fails_with(capsys, monkeypatch, "serve", "--store", str(tmp_path), *options)


def test_a_doctor_refuses_the_budget_that_the_agent_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--profile", "raspberry-pi-5-8gb", "--no-engines", "--budget", "9GiB")
    assert "has 8.00 GiB of memory; give less" in fails_with(capsys, monkeypatch, "doctor", *options)


def test_a_doctors_root_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    says = fails_with(capsys, monkeypatch, "doctor", "--root", str(tmp_path / "nope"))
    assert f"There is no folder {tmp_path / 'nope'}; --root" in says


def test_the_version_is_printed() -> None:
    command = [*COMMAND, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"edgewright-agent {__version__}\n"


def test_the_agent_starts_without_what_nobody_has_asked_for() -> None:
    program = (
        f"import sys, edgewright_agent.cli\nprint([name for name in {ON_DEMAND!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_agent_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "import edgewright_agent.cli, edgewright_agent.server\n"
        "import edgewright_agent.engines, edgewright_agent.telemetry, edgewright_agent.doctor.probe\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
