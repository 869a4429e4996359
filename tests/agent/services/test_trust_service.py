"""Trust that changes in the field: what a running board takes up, refuses, stops, and goes on serving."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import OutsideError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc, trust_pb2, trust_pb2_grpc
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.revocation import without_stopped
from edgewright_agent.deployment.state import Phase, State
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.trust import board_trust, clock
from edgewright_agent.trust.clock import MonotoneClock
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.revocations import revocation_of
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.artifacts import RELEASE_KEY, TIMEOUT_SECONDS, activate, make_artifact, push, upload
from tests.support.artifacts import sign as sign_artifact
from tests.support.mirror_server import MirrorServer
from tests.support.scripted_engine import Script, only_fake
from tests.support.trust_documents import NEW_RELEASE, ROOT, document, revocation, signed, signers

BOTH = signers(RELEASE_KEY, NEW_RELEASE)
REVOKED = signed(2, release=BOTH, revoked=[revocation(reason="leaked")])
STOPPED = signed(2, release=BOTH, revoked=[revocation(stop=True)])


@contextlib.asynccontextmanager
async def board(store: Path, script: Script | None = None, **changes: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A board that starts from trust document 1, and a channel to it."""
    changes = {"trust": document(1, release=BOTH), "trusted_keys": (), **changes}
    start = (script or Script()).start
    async with (
        run_agent(settings_for(store, **changes), available_engines=only_fake, start_engine=start) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield channel


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with board(tmp_path / "store") as channel:
        yield channel


async def update(channel: grpc.aio.Channel, *documents: bytes) -> trust_pb2.UpdateTrustResponse:
    stub = trust_pb2_grpc.TrustServiceStub(channel)
    return await stub.UpdateTrust(trust_pb2.UpdateTrustRequest(documents=documents), timeout=TIMEOUT_SECONDS)


async def trust_of(channel: grpc.aio.Channel) -> trust_pb2.GetTrustResponse:
    stub = trust_pb2_grpc.TrustServiceStub(channel)
    return await stub.GetTrust(trust_pb2.GetTrustRequest(), timeout=TIMEOUT_SECONDS)


async def device(channel: grpc.aio.Channel) -> deployment_pb2.GetDeviceResponse:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    return await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)


async def at_rest(channel: grpc.aio.Channel) -> deployment_pb2.WatchDeploymentResponse:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
    return [step async for step in watch][-1]


async def roll_back(channel: grpc.aio.Channel) -> None:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    await stub.RollBack(deployment_pb2.RollBackRequest(), timeout=TIMEOUT_SECONDS)


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


async def test_a_board_says_whom_it_trusts(channel: grpc.aio.Channel) -> None:
    found = await trust_of(channel)
    assert (found.version, found.issued, found.expires) == (1, "2026-11-01T00:00:00Z", "")
    assert (found.release.threshold, len(found.release.key_ids), len(found.root.key_ids)) == (1, 2, 1)
    assert (found.expired, found.problem, list(found.revoked)) == (False, "", [])


async def test_a_revoked_key_stages_nothing_and_its_active_release_goes_on_serving(
    channel: grpc.aio.Channel,
) -> None:
    first = make_artifact()
    await activate(channel, await push(channel, first))
    (withdrawn,) = (await update(channel, REVOKED)).withdrawn
    assert (withdrawn.release.hex(), withdrawn.active, withdrawn.stop) == (first.digest, True, False)
    assert "leaked" in withdrawn.reason
    assert (await device(channel)).active_release.hex() == first.digest
    assert await refused(push(channel, make_artifact(version="2.0"))) == "REVOKED"
    good = await push(channel, make_artifact(version="3.0", key=NEW_RELEASE))
    await activate(channel, good)
    assert await refused(roll_back(channel)) == "REVOKED"
    assert await refused(activate(channel, bytes.fromhex(first.digest))) == "REVOKED"
    assert [each.release.hex() for each in (await trust_of(channel)).withdrawn] == [first.digest]


async def test_an_automatic_roll_back_to_a_revoked_release_is_legal(tmp_path: Path) -> None:
    script = Script()
    async with board(tmp_path / "store", script) as channel:
        first = make_artifact()
        await activate(channel, await push(channel, first))
        bad = await push(channel, make_artifact(version="2.0", key=NEW_RELEASE, golden=WRONG_GOLDEN))
        await update(channel, REVOKED)
        steps = await activate(channel, bad)
        assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
        assert steps[-1].active_release.hex() == first.digest


WRONG_GOLDEN = {"prompt": "hello", "tokens": [4_000_000]}


async def test_a_revocation_with_stop_goes_back_to_the_previous_release(channel: grpc.aio.Channel) -> None:
    good = make_artifact(key=NEW_RELEASE)
    await activate(channel, await push(channel, good))
    await activate(channel, await push(channel, make_artifact(version="2.0")))
    await update(channel, STOPPED)
    last = await at_rest(channel)
    assert last.active_release.hex() == good.digest
    assert "revoked" in last.message or "rolled back" in last.message


async def test_a_stopped_release_without_a_previous_one_leaves_the_board_idle_also_after_a_restart(
    tmp_path: Path,
) -> None:
    async with board(tmp_path / "store") as channel:
        await activate(channel, await push(channel, make_artifact()))
        await update(channel, STOPPED)
        last = await at_rest(channel)
        assert last.active_release == b""
        assert "was revoked; nothing is served" in last.message
    async with board(tmp_path / "store") as channel:
        assert (await device(channel)).active_release == b""
        assert (await trust_of(channel)).version == 2


async def test_a_board_that_slept_through_a_stop_does_not_serve_again(tmp_path: Path) -> None:
    """The power went after the document was accepted and before the engine was stopped."""
    async with board(tmp_path / "store") as channel:
        await activate(channel, await push(channel, make_artifact()))
    (tmp_path / "store" / "trust" / "00000002.json").write_bytes(STOPPED)
    async with board(tmp_path / "store") as channel:
        assert (await at_rest(channel)).active_release == b""


async def test_a_stop_is_carried_out_although_its_document_came_before_or_an_error_came_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(clock: MonotoneClock, to: datetime) -> None:
        raise OutsideError("The disk is full.", Reason.REASON_DISK_SPACE)

    async with board(tmp_path / "store") as channel:
        await activate(channel, await push(channel, make_artifact()))
        with monkeypatch.context() as patch:
            patch.setattr(MonotoneClock, "reset", full)
            assert await refused(update(channel, STOPPED)) == "DISK_SPACE"
        assert (await at_rest(channel)).active_release == b""
        assert (await trust_of(channel)).version == 2
        assert await refused(update(channel, STOPPED)) == "TRUST_STALE"


async def test_a_stop_is_carried_out_on_a_disk_without_room_and_sent_again_once_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fs: FileSystem, path: Path, data: bytes) -> None:
        raise OutsideError("The disk is full.", Reason.REASON_DISK_SPACE)

    async with board(tmp_path / "store") as channel:
        await activate(channel, await push(channel, make_artifact()))
        with monkeypatch.context() as patch:
            patch.setattr(board_trust, "write_durably", full)
            patch.setattr(clock, "write_durably", full)
            patch.setattr(clock, "REMEMBER_SECONDS", 0.0)  # each time it is asked it would be written
            assert (await trust_of(channel)).problem == ""
            assert await refused(update(channel, STOPPED)) == "DISK_SPACE"
            assert (await at_rest(channel)).active_release == b""
            found = await trust_of(channel)
            assert (found.version, "send it again" in found.problem) == (2, True)
        assert (await update(channel, STOPPED)).version == 2
    async with board(tmp_path / "store") as channel:
        assert (await trust_of(channel)).version == 2


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "TRUST_STALE"),
        ([signed(1, release=BOTH)], "TRUST_STALE"),
        ([signed(2, [RELEASE_KEY], root=signers(RELEASE_KEY))], "KEY_UNTRUSTED"),
        ([b"{}"], "SIGNATURE_INVALID"),
        ([signed(2, release=BOTH), b"garbage"], "SIGNATURE_INVALID"),
        ([signed(2)] * 65, "INVALID_ARGUMENT"),
        ([b"x" * 2**20], "SIGNATURE_INVALID"),
    ],
)
async def test_what_is_no_step_forward_is_refused_whole(
    channel: grpc.aio.Channel, documents: list[bytes], reason: str
) -> None:
    assert await refused(update(channel, *documents)) == reason
    assert (await trust_of(channel)).version == 1


async def test_a_replayed_older_document_is_refused(channel: grpc.aio.Channel) -> None:
    await update(channel, REVOKED, signed(3, release=BOTH, revoked=[revocation()]))
    assert await refused(update(channel, REVOKED)) == "TRUST_STALE"
    assert await refused(push(channel, make_artifact())) == "REVOKED"


async def test_an_expired_document_freezes_staging_and_nothing_else(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    async with board(tmp_path / "store") as channel:
        release = await push(channel, make_artifact())
        other = await push(channel, make_artifact(version="1.1"))
        await activate(channel, release)
        await activate(channel, other)
        old = signed(2, release=BOTH, issued=now - timedelta(days=2), expires=now - timedelta(days=1))
        await update(channel, old)
        assert (await trust_of(channel)).expired
        assert await refused(push(channel, make_artifact(version="2.0"))) == "TRUST_EXPIRED"
        assert (await device(channel)).active_release == other
        await roll_back(channel)
        assert (await at_rest(channel)).active_release == release
        assert await refused(activate(channel, other)) == "TRUST_EXPIRED"
        await update(channel, signed(3, release=BOTH, issued=now, expires=now + timedelta(days=1)))
        await push(channel, make_artifact(version="2.0"))


async def test_a_release_signed_again_with_a_good_key_may_be_activated(channel: grpc.aio.Channel) -> None:
    artifact = make_artifact()
    release = await push(channel, artifact)
    await update(channel, REVOKED)
    assert await refused(activate(channel, release)) == "REVOKED"
    assert await push(channel, sign_artifact(artifact.manifest, artifact.contents, NEW_RELEASE)) == release
    assert (await activate(channel, release))[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
    assert not (await trust_of(channel)).withdrawn


async def test_a_later_signature_survives_a_restart_and_a_damaged_one_is_noticed(tmp_path: Path) -> None:
    artifact, store = make_artifact(), tmp_path / "store"
    again = sign_artifact(artifact.manifest, artifact.contents, NEW_RELEASE)
    async with board(store) as channel:
        release = await push(channel, artifact)
        await push(channel, again)
        await update(channel, REVOKED)
    later = store / "releases" / artifact.digest / "manifest.sig.later"
    async with board(store) as channel:
        later.write_bytes(later.read_bytes().replace(b'"sig": "', b'"sig": "A', 1))
        assert await refused(activate(channel, release)) == "SIGNATURE_INVALID"
        await push(channel, again)
        await activate(channel, release)
        assert (await device(channel)).active_release == release


async def test_a_revoked_certificate_is_not_let_in_any_more(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    create_credentials(keys)
    files = TlsFiles(keys / "agent.pem", keys / "agent.key", keys / "ca.pem")
    base = trust_issuer.newest(keys)
    trust_issuer.revoke(keys, [], revocation_of(keys, str(keys / "observer.pem"), reason="lost"))
    settings = settings_for(tmp_path / "store", tls=files, trust=base, trusted_keys=())
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        async with secure(agent, keys, "observer") as channel:
            assert (await trust_of(channel)).version == 1
            assert await refused(update(channel, *trust_issuer.documents(keys))) == "PERMISSION"
        async with secure(agent, keys, "deployer") as channel:
            await update(channel, *trust_issuer.documents(keys))
            assert (await trust_of(channel)).version == 2
        async with secure(agent, keys, "observer") as channel:
            assert await refused(trust_of(channel)) == "REVOKED"


@contextlib.asynccontextmanager
async def secure(agent: RunningAgent, keys: Path, who: str) -> AsyncIterator[grpc.aio.Channel]:
    authority, key, certificate = (
        (keys / name).read_bytes() for name in ("ca.pem", f"{who}.key", f"{who}.pem")
    )
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    async with grpc.aio.secure_channel(str(agent.address), credentials) as channel:
        yield channel


# Mirrors, through the wire


async def fetch(channel: grpc.aio.Channel, artifact: Any) -> list[deployment_pb2.FetchBlobsResponse]:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    request = deployment_pb2.FetchBlobsRequest(manifest=artifact.manifest_bytes, signature=artifact.envelope)
    return [step async for step in stub.FetchBlobs(request, timeout=TIMEOUT_SECONDS)]


async def test_a_cdn_carries_the_bytes_and_the_wire_only_the_decision(channel: grpc.aio.Channel) -> None:
    server = MirrorServer()
    async with server.running() as address:
        artifact = make_artifact(mirrors=[{"layout": "oci-layout", "url": address}])
        for data in artifact.contents.values():
            server.add(data)
        steps = await fetch(channel, artifact)
    assert steps[-1].fetched_bytes == sum(len(data) for data in artifact.contents.values())
    assert steps[-1].missing_bytes == 0
    assert await upload(channel, artifact) == 0
    committed = await activate(channel, await push(channel, artifact))
    assert committed[-1].outcome == deployment_pb2.OUTCOME_COMMITTED


async def test_no_address_is_called_that_nobody_trusted_has_signed(channel: grpc.aio.Channel) -> None:
    server = MirrorServer()
    async with server.running() as address:
        mirrors = [{"layout": "oci-layout", "url": address}]
        await update(channel, REVOKED)
        revoked, wrong_board = (
            make_artifact(mirrors=mirrors),
            make_artifact(mirrors=mirrors, key=NEW_RELEASE, device_profiles=["jetson-nano-4gb"]),
        )
        stranger = make_artifact(mirrors=mirrors, key=ROOT)
        assert await refused(fetch(channel, revoked)) == "REVOKED"
        assert await refused(fetch(channel, stranger)) == "KEY_UNTRUSTED"
        assert await refused(fetch(channel, wrong_board)) == "DEVICE_MISMATCH"
    assert server.requests == []


# The rule


DIGESTS = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])


@given(
    st.builds(
        State,
        phase=st.sampled_from(Phase),
        active=st.none() | DIGESTS,
        previous=st.none() | DIGESTS,
        candidate=st.none() | DIGESTS,
        attempts=st.integers(0, 3),
    ).filter(lambda state: state.at_rest == (state.candidate is None)),
    st.sets(DIGESTS),
)
def test_after_a_stop_nothing_stopped_is_active_previous_or_on_trial(state: State, stopped: set[str]) -> None:
    staged = {"a" * 64, "b" * 64, "c" * 64}
    after = without_stopped(state, staged, stopped)
    assert not after.in_use & stopped
    assert without_stopped(after, staged, stopped) == after
    if not state.in_use & stopped:
        assert after == state
