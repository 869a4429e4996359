"""Names that only the system's resolver knows, such as those of mDNS."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgewright.address import Address
from edgewright.errors import OutsideError
from edgewright_builder.device_client import name_resolution as resolution
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.device_client.name_resolution import numeric_target
from edgewright_builder.keys.certificates import agent_pair, load_authority
from edgewright_builder.keys.credentials import create_credentials
from tests.support.device_simulator import Board, simulated_device

Answer = list[tuple[socket.AddressFamily, tuple[Any, ...]]]
V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """What this machine's resolver knows beside its own."""
    known: dict[str, Answer] = {}
    system = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        if host not in known:
            return system(host, *rest, **options)
        return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def server_credentials(folder: Path, host: str) -> grpc.ServerCredentials:
    pair = agent_pair(load_authority(folder), "agent", [host])
    return grpc.ssl_server_credentials(
        [(pair["agent.key"], pair["agent.pem"])], (folder / "ca.pem").read_bytes(), require_client_auth=True
    )


@pytest.mark.parametrize(
    "answer",
    [
        [(V4, ("127.0.0.1", 0))],
        [(V6, ("::1", 0, 0, 0)), (V4, ("127.0.0.1", 0))],
        [(V4, ("127.0.0.9", 0)), (V4, ("127.0.0.1", 0))],
    ],
)
async def test_a_name_of_mdns_is_reached_also_after_the_board_came_back(
    names: dict[str, Answer], credentials: Path, answer: Answer
) -> None:
    names["board.local"] = answer
    tls = server_credentials(credentials, "board.local")
    async with simulated_device(Board(), credentials=tls) as where:
        client = DeviceClient(Address("board.local", where.port), credentials)
        assert (await client.get_device()).hostname == "board-7"
    async with client:
        with pytest.raises(LinkError, match=r"link to board\.local:\d+ broke off"):
            await client.roll_back()
        async with simulated_device(Board(), credentials=tls, port=where.port):
            assert (await client.get_device()).hostname == "board-7"


async def test_a_board_that_came_back_with_another_address_is_reached(
    names: dict[str, Answer], credentials: Path
) -> None:
    tls = server_credentials(credentials, "board.local")
    names["board.local"] = [(V4, ("127.0.0.1", 0))]
    async with simulated_device(Board(), credentials=tls) as where:
        client = DeviceClient(Address("board.local", where.port), credentials)
        await client.get_device()
    names["board.local"] = [(V4, ("127.0.0.2", 0))]
    async with client, simulated_device(Board(), credentials=tls, host="127.0.0.2", port=where.port):
        assert (await client.get_device()).hostname == "board-7"


async def test_a_certificate_for_another_name_is_refused(names: dict[str, Answer], credentials: Path) -> None:
    names["board.local"] = [(V4, ("127.0.0.1", 0))]  # the certificate has this address: the name counts
    tls = server_credentials(credentials, "other.local")
    async with (
        simulated_device(Board(), credentials=tls) as where,
        DeviceClient(Address("board.local", where.port), credentials) as client,
    ):
        with pytest.raises(OutsideError, match=r"other hosts: .*--host board\.local"):
            await client.get_device()


@pytest.mark.parametrize("host", ["no-such-board.invalid", "a" * 70 + ".local"])
async def test_an_unknown_name_is_one_sentence(credentials: Path, host: str) -> None:
    async with DeviceClient(Address(host, 7443), credentials) as client:
        with pytest.raises(
            LinkError, match=rf"at {host}:7443 \([^)]+\): check the name with `ping"
        ) as caught:
            await client.roll_back()
    assert caught.value.exit_code == 3


async def test_a_resolver_that_does_not_answer_is_given_up(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> Answer:
        release.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(resolution, "RESOLVE_SECONDS", 0.1)
    try:
        async with DeviceClient(Address("board.local", 7443), credentials) as client:
            with pytest.raises(LinkError, match="was not resolved within"):
                await client.roll_back()
    finally:
        release.set()


async def test_every_address_of_both_families_is_dialled(names: dict[str, Answer]) -> None:
    names["board.local"] = [
        (V6, ("fe80::1%eth0", 0, 0, 3)),
        (V6, ("fd00::7", 0, 0, 0)),
        (V4, ("192.0.2.7", 0)),
    ]
    assert await numeric_target(Address("board.local", 7443)) == (
        "ipv6:[fe80::1%253]:7443,[fd00::7]:7443,[::ffff:192.0.2.7]:7443"
    )
    assert await numeric_target(Address("192.0.2.7", 7443)) is None


async def test_a_name_that_a_proxy_looks_up_is_left_to_it(
    names: dict[str, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["board.local"] = [(V4, ("192.0.2.7", 0))]
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert await numeric_target(Address("board.local", 7443)) is None
    monkeypatch.setenv("no_proxy", ".local")
    assert await numeric_target(Address("board.local", 7443)) == "ipv4:192.0.2.7:7443"


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_an_agent_on_this_machine_is_called_past_the_proxies_of_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    async with simulated_device(Board()) as address:
        for host in (address.host, "localhost"):
            async with DeviceClient(Address(host, address.port), None) as client:
                assert (await client.get_device()).hostname == "board-7"
