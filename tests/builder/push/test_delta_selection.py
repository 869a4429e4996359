"""Deltas over the wire: a real agent makes the new release from the old one, or gets the chunks themselves."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.chunk_delta import Delta
from edgewright.errors import InputError, OutsideError
from edgewright.trust.keys import load_public_key
from edgewright.v1.deployment_pb2 import ChunkDelta, Release, ReleaseState
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.services.uploads import receiving
from edgewright_agent.store import Blob, apply_delta
from edgewright_agent.store.files.layout import Layout
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push import pushed_before
from edgewright_builder.push.delta_selection import DeltaSources, base_candidates
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import TransferListener, TransferPlan
from tests.agent.conftest import settings_for
from tests.builder.device_client.test_agent import agent_process, durable_bytes_of
from tests.support.bad_link import Link, bad_link
from tests.support.built_artifacts import make_artifact
from tests.support.scripted_engine import Script, only_fake

MIB = 1024 * 1024
OLD = random.Random(1).randbytes(9 * MIB)  # 3 chunks


def touched(data: bytes, every: int = 300) -> bytes:
    changed = bytearray(data)
    for index in range(0, len(changed), every):
        changed[index] ^= 1 + index % 15
    return bytes(changed)


NEW = touched(OLD)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
async def agent(tmp_path: Path, credentials: Path) -> AsyncIterator[RunningAgent]:
    settings = settings_for(tmp_path / "store", trusted_keys=(load_public_key(credentials / "release.pub"),))
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        yield agent


@pytest.fixture
async def client(agent: RunningAgent) -> AsyncIterator[DeviceClient]:
    async with DeviceClient(agent.address, None) as client:
        yield client


def artifact_of(folder: Path, credentials: Path, model: bytes, **fields: Any) -> Artifact:
    key = load_signing_key(credentials / "release.key")
    fields = {"device_profiles": ("raspberry-pi-5-8gb",), **fields}
    return make_artifact(folder, {"engine/model.bin": model, "tokenizer/t.json": b"{}"}, key, **fields)


async def send(client: DeviceClient, artifact: Artifact, *folders: Path, **options: Any) -> PushResult:
    sources = DeltaSources(folders)
    return await push(client, artifact.folder, None, delta_sources=sources, **options)


async def test_an_update_of_what_was_pushed_from_here_travels_as_a_delta(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    plans: list[TransferPlan] = []
    listener = TransferListener(planned=plans.append)
    old = await send(client, artifact_of(tmp_path / "old", credentials, OLD), listener=listener)
    new = await send(client, artifact_of(tmp_path / "new", credentials, NEW), listener=listener)
    assert [plan.how for plan in plans] == ["full", "delta"]
    assert plans[1].delta_base == old.release
    assert new.sent_bytes == plans[1].delta_bytes == plans[1].travelling_bytes
    assert new.sent_bytes < len(NEW) / 20
    assert new.plan.missing_bytes == len(NEW)
    assert new.verdict is not None
    assert new.verdict.committed
    again = await send(client, artifact_of(tmp_path / "new", credentials, NEW), listener=listener)
    assert (again.sent_bytes, again.plan.how) == (0, "nothing")


async def test_an_earlier_artifact_can_be_given_by_its_folder(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    old = artifact_of(tmp_path / "old", credentials, OLD)
    await push(client, old.folder, None)  # not remembered
    new = artifact_of(tmp_path / "new", credentials, NEW)
    assert (await send(client, new, tmp_path, old.folder)).plan.how == "delta"


async def test_without_a_common_release_the_chunks_travel(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    await push(client, artifact_of(tmp_path / "old", credentials, OLD).folder, None)
    result = await send(client, artifact_of(tmp_path / "new", credentials, NEW))
    assert (result.plan.delta_bytes, result.sent_bytes) == (None, len(NEW))


async def test_a_local_copy_that_is_not_what_the_board_has_costs_bytes_and_nothing_else(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    await send(client, artifact_of(tmp_path / "old", credentials, OLD))
    (kept,) = pushed_before.pushed_folder().iterdir()
    model = kept / "engine" / "model.bin"
    model.unlink()
    model.write_bytes(OLD[: 6 * MIB] + bytes(3 * MIB))  # only chunk 2 is affected, and part of chunk 1
    notes: list[str] = []
    new = artifact_of(tmp_path / "new", credentials, touched(OLD[:8] + bytes(100) + OLD[108:]))
    result = await send(client, new, listener=TransferListener(note=notes.append))
    assert any("can't use the delta" in note for note in notes)
    assert result.plan.how == "delta"
    assert 4 * MIB < result.sent_bytes < len(NEW) + MIB  # the chunk that was made before is kept
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_local_copy_that_is_half_gone_costs_the_delta_and_nothing_else(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    await send(client, artifact_of(tmp_path / "old", credentials, OLD))
    (kept,) = pushed_before.pushed_folder().iterdir()
    (kept / "engine" / "model.bin").unlink()
    notes: list[str] = []
    new = artifact_of(tmp_path / "new", credentials, NEW)
    result = await send(client, new, listener=TransferListener(note=notes.append))
    assert any("no delta against release" in note and "model.bin" in note for note in notes)
    assert (result.plan.delta_bytes, result.sent_bytes) == (None, len(NEW))
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_base_that_goes_meanwhile_is_noticed_and_the_chunks_travel(
    agent: RunningAgent, client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    old = await send(client, artifact_of(tmp_path / "old", credentials, OLD), activate=False)
    blobs = tmp_path / "store" / "blobs" / "sha256"

    def delete_blobs(plan: TransferPlan) -> None:
        assert plan.delta_base == old.release
        for blob in blobs.glob("*/*"):
            if blob.stat().st_size == len(OLD):
                blob.unlink()

    new = artifact_of(tmp_path / "new", credentials, NEW)
    result = await send(client, new, listener=TransferListener(planned=delete_blobs))
    assert result.sent_bytes >= len(NEW)
    assert result.verdict is not None
    assert result.verdict.committed


async def test_an_agent_that_knows_no_deltas_gets_the_chunks(
    client: DeviceClient, tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(message: ChunkDelta, blob: Blob) -> Delta:
        raise InputError("After the blob come parts.")  # what an older one says to any other message

    monkeypatch.setattr(receiving, "delta_from", unknown)
    notes: list[str] = []
    await send(client, artifact_of(tmp_path / "old", credentials, OLD))
    new = artifact_of(tmp_path / "new", credentials, NEW)
    result = await send(client, new, listener=TransferListener(note=notes.append))
    assert result.plan.how == "delta"
    assert any("After the blob come parts" in note for note in notes)
    assert result.sent_bytes >= len(NEW)
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_delta_that_is_cut_off_goes_on_with_the_chunks_not_yet_made(
    client: DeviceClient, tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def cut_off_in_the_last_chunk(layout: Layout, delta: Delta, frame: bytes, size_bytes: int) -> bytearray:
        made.append(delta.chunk)
        if len(made) == 3:
            raise OutsideError("The link broke off.")
        return apply_delta(layout, delta, frame, size_bytes)

    await send(client, artifact_of(tmp_path / "old", credentials, OLD))
    monkeypatch.setattr(receiving, "apply_delta", cut_off_in_the_last_chunk)
    result = await send(client, artifact_of(tmp_path / "new", credentials, NEW))
    assert made == [0, 1, 2, 2]
    assert result.resumptions == 1
    assert result.plan.delta_bytes is not None
    assert result.sent_bytes < 2 * result.plan.delta_bytes
    assert result.verdict is not None
    assert result.verdict.committed


@pytest.mark.crash
@pytest.mark.timeout(600)  # 80 MiB are signed, read and sent twice, on a machine that others may use
async def test_an_agent_killed_in_the_middle_of_a_delta_keeps_the_chunks_it_made(
    tmp_path: Path, credentials: Path
) -> None:
    large = random.Random(2).randbytes(80 * MIB)  # more than an agent leaves unflushed
    fields: dict[str, Any] = {"device_profiles": ("this-host",)}
    old = artifact_of(tmp_path / "old", credentials, large, **fields)
    scattered = bytearray(large)
    scattered[::50] = random.Random(3).randbytes(len(large[::50]))  # nothing a frame could say in short
    new = artifact_of(tmp_path / "new", credentials, bytes(scattered), **fields)
    blob = next(bytes.fromhex(file.sha256) for file in new.manifest.files if file.size_bytes > MIB)
    link = Link()

    def hold_the_end_back(plan: TransferPlan) -> None:  # until the kill
        assert plan.delta_bytes is not None
        link.silent_after_bytes = link.forwarded_bytes + plan.delta_bytes * 9 // 10

    with agent_process(tmp_path / "store", credentials) as (process, port):
        address = parse_address(f"localhost:{port}")
        async with (
            bad_link(address, link) as far,
            DeviceClient(far, credentials) as client,
            DeviceClient(address, credentials) as near,
        ):
            await send(near, old)
            pushing = asyncio.create_task(
                send(client, new, listener=TransferListener(planned=hold_the_end_back))
            )
            durable_bytes = 0
            while not (link.silent and durable_bytes):
                assert not pushing.done()
                durable_bytes = await durable_bytes_of(near, blob)
                await asyncio.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            link.silent, link.silent_after_bytes = False, None
            with agent_process(tmp_path / "store", credentials, port):
                result = await pushing
    assert result.resumptions >= 1
    assert durable_bytes >= 4 * MIB
    assert result.plan.delta_bytes is not None
    # Sent twice at most: what was under way, not what was durable. A chunk's frame may be longer than another's.
    assert result.sent_bytes <= result.plan.delta_bytes * (2 - durable_bytes / len(large) + 0.05)
    assert result.verdict is not None
    assert result.verdict.committed


def test_what_serves_is_the_first_base_and_a_denied_release_none() -> None:
    states = ReleaseState
    releases = [
        Release(release=b"\1" * 32, state=states.RELEASE_STATE_STAGED, release_counter=1),
        Release(release=b"\2" * 32, state=states.RELEASE_STATE_STAGED, release_counter=2),
        Release(release=b"\3" * 32, state=states.RELEASE_STATE_DENIED, release_counter=9),
        Release(release=b"\4" * 32, state=states.RELEASE_STATE_PREVIOUS, release_counter=3),
        Release(release=b"\5" * 32, state=states.RELEASE_STATE_ACTIVE, release_counter=4),
    ]
    assert [digest[:2] for digest in base_candidates(releases)] == ["05", "04", "02", "01"]


def test_the_newest_few_artifacts_are_kept_and_found(tmp_path: Path, credentials: Path) -> None:
    made = [
        artifact_of(tmp_path / f"a{i}", credentials, bytes([i]) * 9) for i in range(pushed_before.KEPT + 2)
    ]
    for artifact in made:
        pushed_before.remember(artifact)
        pushed_before.remember(artifact)
    found = [pushed_before.find([artifact.digest], ()) for artifact in made]
    assert [each is not None for each in found] == [False] * 2 + [True] * pushed_before.KEPT
    assert len(list(pushed_before.pushed_folder().iterdir())) == pushed_before.KEPT


def test_a_kept_artifact_that_is_half_gone_is_kept_anew(tmp_path: Path, credentials: Path) -> None:
    artifact = artifact_of(tmp_path / "a", credentials, OLD)
    pushed_before.remember(artifact)
    (pushed_before.pushed_folder() / artifact.digest / "engine" / "model.bin").unlink()
    pushed_before.remember(artifact)
    found = pushed_before.find([artifact.digest], ())
    assert found is not None
    assert (found.folder / "engine" / "model.bin").read_bytes() == OLD


def test_an_artifact_whose_forgetting_is_interrupted_is_not_found(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        artifact_of(tmp_path / f"a{i}", credentials, bytes([i]) * 9) for i in range(pushed_before.KEPT + 2)
    ]
    for artifact in made[: pushed_before.KEPT]:
        pushed_before.remember(artifact)

    def interrupted(folder: Path, **_: Any) -> None:
        if (folder / "engine").is_dir():
            (folder / "engine" / "model.bin").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pushed_before.remember(made[-2])
    assert pushed_before.find([made[0].digest], ()) is None
    pushed_before.remember(made[-1])
    assert len(list(pushed_before.pushed_folder().iterdir())) == pushed_before.KEPT


def test_a_kept_artifact_outlives_the_folder_it_was_pushed_from(tmp_path: Path, credentials: Path) -> None:
    artifact = artifact_of(tmp_path / "a", credentials, OLD)
    pushed_before.remember(artifact)
    artifact.path(artifact.manifest.files[0]).unlink()
    found = pushed_before.find(["00" * 32, artifact.digest], [tmp_path])
    assert found is not None
    assert found.path(found.manifest.files[0]).read_bytes() == OLD
