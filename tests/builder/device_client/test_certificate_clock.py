"""A clock outside of a certificate's time is named, and not the credentials."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgewright.errors import OutsideError
from edgewright_builder.device_client import certificate_clock as validity
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys import certificates
from tests.support.device_simulator import Board, simulated_device

Issue = Callable[[float, float, float], Path]
NOW = datetime.datetime.now(datetime.timezone.utc)


def set_clock_of_keys(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """What is issued from here on is issued so many days from now."""
    moved = SimpleNamespace(now=lambda zone: datetime.datetime.now(zone) + datetime.timedelta(days=days))
    clock = SimpleNamespace(datetime=moved, timedelta=datetime.timedelta, timezone=datetime.timezone)
    monkeypatch.setattr(certificates, "datetime", clock)


@pytest.fixture
def issue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Issue:
    """Makes a folder whose authority, agent and client were issued so many days from now."""

    def issue(authority_days: float, agent_days: float, client_days: float) -> Path:
        set_clock_of_keys(monkeypatch, authority_days)
        authority = certificates.new_authority()
        files = {"ca.pem": authority.certificate.public_bytes(Encoding.PEM)}
        set_clock_of_keys(monkeypatch, agent_days)
        files |= certificates.agent_pair(authority, "agent", [])
        set_clock_of_keys(monkeypatch, client_days)
        files |= certificates.client_pair(authority, "deployer")
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return tmp_path

    return issue


async def sentence(folder: Path) -> str:
    """What the client says of a board that runs with the credentials of this folder."""
    pair = (folder / "agent.key").read_bytes(), (folder / "agent.pem").read_bytes()
    tls = grpc.ssl_server_credentials([pair], (folder / "ca.pem").read_bytes(), require_client_auth=True)
    async with (
        simulated_device(Board(), credentials=tls) as address,
        DeviceClient(address, folder) as client,
    ):
        with pytest.raises(OutsideError) as caught:
            await client.get_device()
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("days", "what", "why"),
    [
        ((0, 5, 0), "The certificate of 127.0.0.1:", "is not yet valid"),
        ((-2000, -2000, 0), "The certificate of 127.0.0.1:", "has expired"),
        ((0, 0, 5), "deployer.pem", "is not yet valid"),
        ((-2000, 0, -2000), "deployer.pem", "has expired"),
        ((5, 0, 0), "ca.pem", "is not yet valid"),
        ((-4000, 0, 0), "ca.pem", "has expired"),
    ],
)
async def test_a_certificate_outside_of_its_time_is_named_with_the_clock(
    issue: Issue, days: tuple[float, float, float], what: str, why: str
) -> None:
    text = await sentence(issue(*days))
    assert what in text
    assert f"{why}: it counts from 20" in text
    assert f"this machine's clock says {NOW:%Y-%m-%d}" in text
    assert "timedatectl" in text
    assert "edgewright keys" in text


@pytest.mark.parametrize("days", [5, -2000])
async def test_a_board_whose_clock_is_outside_of_our_certificate_is_blamed_for_it(
    issue: Issue, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    """The board has the clock of this test; the client's is so many days off, and its certificate valid by it."""
    monkeypatch.setattr(validity, "utc_now", lambda: NOW + datetime.timedelta(days=days))
    text = await sentence(issue(-2000, 0, days))
    assert "refuses the client certificate" in text
    assert "probably the board's clock is wrong" in text
    assert "timedatectl" in text
