"""Who may do what: certificates, roles, deadlines, health."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgewright.errors import InputError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.runtime.tls import TlsFiles, server_credentials, validity_problem
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_builder.keys.credentials import create_credentials
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import Script, only_fake


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder / "ours")
    create_credentials(folder / "strangers")
    return folder / "ours"


def tls_files(credentials: Path) -> TlsFiles:
    return TlsFiles(credentials / "agent.pem", credentials / "agent.key", credentials / "ca.pem")


@pytest.fixture
async def secure_agent(tmp_path: Path, credentials: Path) -> AsyncIterator[RunningAgent]:
    settings = settings_for(tmp_path / "store", tls=tls_files(credentials))
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        yield agent


@contextlib.asynccontextmanager
async def connected(agent: RunningAgent, credentials: Path, who: str | None) -> AsyncIterator[Any]:
    """A stub of somebody who trusts our authority and shows the certificate `who`."""
    key = (credentials / f"{who}.key").read_bytes() if who else None
    certificate = (credentials / f"{who}.pem").read_bytes() if who else None
    authority = (credentials.with_name("ours") / "ca.pem").read_bytes()
    channel_credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    async with grpc.aio.secure_channel(str(agent.address), channel_credentials) as channel:
        yield deployment_pb2_grpc.DeploymentServiceStub(channel)


async def test_a_deployer_may_do_everything(secure_agent: RunningAgent, credentials: Path) -> None:
    async with connected(secure_agent, credentials, "deployer") as stub:
        await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
        await stub.FindMissingBlobs(deployment_pb2.FindMissingBlobsRequest(), timeout=TIMEOUT_SECONDS)


async def test_an_observer_may_only_look(secure_agent: RunningAgent, credentials: Path) -> None:
    async with connected(secure_agent, credentials, "observer") as stub:
        await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
        await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
        watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
        assert len([step async for step in watch]) == 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.FindMissingBlobs(deployment_pb2.FindMissingBlobsRequest(), timeout=TIMEOUT_SECONDS)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(error.value) == "PERMISSION"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.WriteBlob(iter([]), timeout=TIMEOUT_SECONDS)
        assert reason_of(error.value) == "PERMISSION"


@pytest.mark.parametrize(
    ("days", "says"),
    [(-30, "is valid from"), (0, None), (30 * 365, "was valid until")],
    ids=["before", "now", "after"],
)
def test_a_board_whose_clock_is_outside_its_certificates_says_so(
    credentials: Path, days: int, says: str | None
) -> None:
    problem = validity_problem(tls_files(credentials), datetime.now(timezone.utc) + timedelta(days=days))
    assert (problem is None) == (says is None)
    assert says is None or (says in str(problem) and "clock" in str(problem) and "agent.pem" in str(problem))


@pytest.mark.parametrize("who", ["nobody", "stranger"])
async def test_whoever_has_no_certificate_of_ours_is_not_let_in(
    secure_agent: RunningAgent, credentials: Path, who: str
) -> None:
    folder = credentials if who == "nobody" else credentials.with_name("strangers")
    async with connected(secure_agent, folder, None if who == "nobody" else "deployer") as stub:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_unary_calls_need_a_deadline(channel: grpc.aio.Channel) -> None:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetDevice(deployment_pb2.GetDeviceRequest())
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error.value) == "DEADLINE_MISSING"
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest())
    assert len([step async for step in watch]) == 1  # streams need none


async def test_health_tells_control_from_inference(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    async def status(service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        return int((await stub.Check(request, timeout=TIMEOUT_SECONDS)).status)

    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "edgewright.v1.DeploymentService", "edgewright.v1.TelemetryService"):
        assert await status(service) == serving
    assert await status("inference") == health_pb2.HealthCheckResponse.NOT_SERVING
    await activate(channel, await push(channel, make_artifact()))
    assert await status("inference") == serving


async def test_without_tls_only_loopback_is_listened_on(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "store")
    settings = replace(settings, listen=replace(settings.listen, host="0.0.0.0"))
    with pytest.raises(InputError, match="loopback only"):
        async with run_agent(settings):
            pass
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"certificate": "nowhere.pem"}, "can't be read"),
        ({"certificate": "release.pub"}, "no PEM certificate"),
        ({"key": "ca.pem"}, "no unencrypted PEM private key"),
        ({"key": "deployer.key"}, "is not the key of the certificate"),
        ({"authority": "release.pub"}, "no PEM certificate"),
    ],
)
def test_a_wrong_tls_file_is_named(credentials: Path, change: dict[str, str], says: str) -> None:
    files = replace(tls_files(credentials), **{name: credentials / path for name, path in change.items()})
    with pytest.raises(InputError, match=says) as error:
        server_credentials(files)
    assert any(path in str(error.value) for path in change.values())
