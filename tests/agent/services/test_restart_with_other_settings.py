"""An agent that is started again with another trust, none, or another profile: what it serves, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewright.trust.document import pinned
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from edgewright_agent.server import run_agent
from edgewright_agent.trust import Trust
from edgewright_profiles import load_profile
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.agent.services.test_trust_service import at_rest, device, trust_of, update
from tests.support.artifacts import RELEASE_KEY, TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.artifacts import sign as sign_artifact
from tests.support.scripted_engine import Script, only_fake
from tests.support.trust_documents import (
    NEW_RELEASE,
    NEW_ROOT,
    ROOT,
    document,
    revocation,
    signed,
    signers,
)

OURS, OTHER = (RELEASE_KEY.public_key(),), (NEW_RELEASE.public_key(),)
BOTH = signers(RELEASE_KEY, NEW_RELEASE)


@contextlib.asynccontextmanager
async def board(store: Path, script: Script | None = None, **changes: Any) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        run_agent(
            settings_for(store, **changes),
            available_engines=only_fake,
            start_engine=(script or Script()).start,
        ) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield channel


async def generate(channel: grpc.aio.Channel) -> int:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(prompt="p", max_tokens=3)
    return sum([len(each.deltas) async for each in stub.Generate(request, timeout=TIMEOUT_SECONDS)])


async def answers(channel: grpc.aio.Channel) -> bool:
    """Whether the active release answers, once the board has started it."""
    for _ in range(200):
        try:
            return await generate(channel) == 3
        except grpc.aio.AioRpcError as error:
            if reason_of(error) == "NO_ACTIVE_RELEASE":
                return False
        await asyncio.sleep(0.02)
    raise AssertionError("neither served nor refused")


async def with_an_active_release(store: Path, **changes: Any) -> str:
    async with board(store, **changes) as channel:
        made = make_artifact()
        await activate(channel, await push(channel, made))
        assert await answers(channel)
    return made.digest


@pytest.mark.parametrize("trust", [OTHER, ()], ids=["another key", "no key"])
async def test_a_release_of_another_trust_is_not_served_and_the_board_says_why(
    tmp_path: Path, trust: tuple[Any, ...]
) -> None:
    digest = await with_an_active_release(tmp_path)
    script = Script()
    async with board(tmp_path, script, trusted_keys=trust) as channel:
        assert not await answers(channel)
        assert not script.running
        found = await device(channel)
        assert found.active_release.hex() == digest
        assert [digest[:12] in note and "accepted under another trust" in note for note in found.notes] == [
            True
        ]
    async with board(tmp_path) as channel:  # the mistake is mended
        assert await answers(channel)
        assert not (await device(channel)).notes


async def test_a_release_of_another_trust_is_not_gone_back_to_either(tmp_path: Path) -> None:
    await with_an_active_release(tmp_path)
    async with board(tmp_path, trusted_keys=OTHER) as channel:
        bad = make_artifact(version="2.0", key=NEW_RELEASE, golden={"prompt": "hello", "tokens": [4_000_000]})
        await activate(channel, await push(channel, bad))
        assert not await answers(channel)


async def test_another_key_does_not_inherit_the_documents_of_the_one_before(tmp_path: Path) -> None:
    async with board(tmp_path, trust=document(1, release=BOTH), trusted_keys=()) as channel:
        await update(channel, signed(2, release=BOTH))
    async with board(tmp_path, trusted_keys=(NEW_ROOT.public_key(),)) as channel:
        found = await trust_of(channel)
        assert (found.version, len(found.release.key_ids)) == (0, 1)
    async with board(tmp_path, trust=document(1, release=BOTH), trusted_keys=()) as channel:
        await update(channel, signed(2, release=BOTH))  # which is newer than 1 again


async def test_a_key_that_a_later_document_dropped_goes_on_serving_after_a_restart(tmp_path: Path) -> None:
    base: dict[str, Any] = {"trust": document(1, release=BOTH), "trusted_keys": ()}
    async with board(tmp_path, **base) as channel:
        made = make_artifact()
        await activate(channel, await push(channel, made))
        rotated = signed(2, (ROOT, NEW_ROOT), root=signers(NEW_ROOT), release=signers(NEW_RELEASE))
        await update(channel, rotated)
    newest = {"trust": document(2, root=signers(NEW_ROOT), release=signers(NEW_RELEASE)), "trusted_keys": ()}
    for start in (base, newest):
        async with board(tmp_path, **start) as channel:
            assert (await trust_of(channel)).version == 2
            assert await answers(channel)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await activate(channel, await push(channel, make_artifact(version="2.0")))
            assert reason_of(error.value) == "KEY_UNTRUSTED"


def damage_later_signature(store: Path, digest: str) -> None:
    """As one bit does that flips in the signature itself: the envelope is still one."""
    later = store / "releases" / digest / "manifest.sig.later"
    envelope = json.loads(later.read_bytes())
    first, *rest = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = "".join(["B" if first == "A" else "A", *rest])
    later.write_bytes((json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode())


async def signed_twice(channel: grpc.aio.Channel, version: str) -> str:
    """Pushes and activates a release that the old key signed and the new one signed again; returns its digest."""
    made = make_artifact(version=version)
    release = await push(channel, made)
    await push(channel, sign_artifact(made.manifest, made.contents, NEW_RELEASE))
    await activate(channel, release)
    return made.digest


async def test_a_damaged_later_signature_stops_no_release_whose_first_one_is_good(tmp_path: Path) -> None:
    base: dict[str, Any] = {"trust": document(1, release=BOTH), "trusted_keys": ()}
    async with board(tmp_path, **base) as channel:
        digest = await signed_twice(channel, "1.0")
    damage_later_signature(tmp_path, digest)
    async with board(tmp_path, **base) as channel:
        assert await answers(channel)
        assert (await device(channel)).active_release.hex() == digest


@pytest.mark.parametrize("stop", [False, True])
async def test_a_damaged_later_signature_makes_no_revoked_key_count_and_the_board_goes_back(
    tmp_path: Path, stop: bool
) -> None:
    base: dict[str, Any] = {"trust": document(1, release=BOTH), "trusted_keys": ()}
    async with board(tmp_path, **base) as channel:
        before = make_artifact(version="1.0", key=NEW_RELEASE)
        await activate(channel, await push(channel, before))
        digest = await signed_twice(channel, "2.0")
        await update(channel, signed(2, release=signers(NEW_RELEASE), revoked=[revocation(stop=stop)]))
        assert (await device(channel)).active_release.hex() == digest
    damage_later_signature(tmp_path, digest)
    async with board(tmp_path, **base) as channel:
        while (await device(channel)).active_release.hex() != before.digest:
            await asyncio.sleep(0.02)
        assert await answers(channel)


async def test_a_candidate_of_another_trust_is_not_tried_after_a_restart(tmp_path: Path) -> None:
    script = Script(pause_seconds=30.0)
    async with board(tmp_path, script) as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        release = await push(channel, make_artifact(golden={"prompt": "p", "tokens": [5, 6, 7]}))
        request = deployment_pb2.ActivateReleaseRequest(release=release)
        await stub.ActivateRelease(request, timeout=TIMEOUT_SECONDS)
    script = Script()
    async with board(tmp_path, script, trusted_keys=OTHER) as channel:
        assert "accepted under another trust" in (await at_rest(channel)).message
        assert not await answers(channel)
        assert not script.running
    async with board(tmp_path) as channel:  # and it was not denied
        await activate(channel, release)
        assert await answers(channel)


async def test_a_release_for_another_profile_goes_on_serving_and_the_board_says_so(tmp_path: Path) -> None:
    digest = await with_an_active_release(tmp_path)
    async with board(tmp_path, profile=load_profile("jetson-orin-nano-8gb")) as channel:
        assert await answers(channel)
        (note,) = (await device(channel)).notes
        assert digest[:12] in note
        assert "raspberry-pi-5-8gb" in note
        assert "jetson-orin-nano-8gb" in note


def test_a_store_of_an_earlier_agent_has_no_chain_and_its_document_counts(tmp_path: Path) -> None:
    Trust(document(1, release=BOTH), tmp_path).update([signed(2, release=signers(NEW_RELEASE))])
    (tmp_path / "chain.json").unlink()
    again = Trust(pinned((NEW_ROOT.public_key(),)), tmp_path)
    assert again.document is not None
    assert again.document.version == 2
    assert (tmp_path / "chain.json").exists()
