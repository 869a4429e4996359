"""Agents for the tests: real gRPC servers on free ports, over stores in temporary folders; and bare engines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from edgewright.address import Address
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.server import AgentSettings, RunningAgent, run_agent
from edgewright_agent.store import Space
from edgewright_profiles import load_profile
from tests.support.artifacts import RELEASE_KEY
from tests.support.engine_releases import Release, tiny_onnx_release
from tests.support.relay_transport import RelayTransport
from tests.support.scripted_engine import Script, only_fake

StartAgent = Callable[..., contextlib.AbstractAsyncContextManager[RunningAgent]]


def settings_for(store: Path, **changes: Any) -> AgentSettings:
    """An agent on loopback without TLS that trusts the tests' key and wastes no time."""
    defaults: dict[str, Any] = {
        "profile": load_profile("raspberry-pi-5-8gb"),
        "store": store,
        "listen": Address("127.0.0.1", 0),
        "tls": None,
        "trusted_keys": (RELEASE_KEY.public_key(),),
        "space": Space(reserve_bytes=0),
        "probation_seconds": 0.0,
        "restart_seconds": 0.01,
    }
    return AgentSettings(**{**defaults, **changes})


@pytest.fixture
def script() -> Script:
    """How the agent's engines behave."""
    return Script()


@pytest.fixture
async def running_agent(tmp_path: Path, script: Script) -> AsyncIterator[RunningAgent]:
    """An agent whose engines follow `script`."""
    settings = settings_for(tmp_path / "store")
    async with run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent:
        yield agent


@pytest.fixture
async def channel(running_agent: RunningAgent) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `running_agent`."""
    async with grpc.aio.insecure_channel(str(running_agent.address)) as channel:
        yield channel


@pytest.fixture(autouse=True)
def _fake_engine_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A real model, exported in seconds."""
    return tiny_onnx_release(tmp_path_factory.mktemp("tiny"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(release: Release) -> AsyncIterator[ServedEngine]:
    """An engine on the module's own `release`: one per module and kind, as some take long to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
        async with release.running() as engine:
            assert isinstance(engine, ServedEngine)
            yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(engine: ServedEngine) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP to `engine`, without the agent between; of some engines as the agent puts it right."""
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    if engine.kind in ("llama.cpp", "tensorrt-edge-llm"):
        transport = RelayTransport(engine)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=120) as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient) -> Any:
    """OpenAI's package on `http`."""
    import openai  # takes its time, and few tests want it

    transport: Any = http  # newer versions of the package are typed with an httpx of their own
    return openai.AsyncOpenAI(
        api_key="none", base_url="http://engine/v1", http_client=transport, max_retries=0
    )
