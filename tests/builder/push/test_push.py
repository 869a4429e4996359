from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from edgewright.address import Address
from edgewright.errors import BusyError, InputError, OutsideError, RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import Sent, TransferListener, TransferPlan
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_device

MIB = 1024 * 1024
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "")
BUSY = (grpc.StatusCode.ABORTED, "BUSY")
MODEL = b"".join(bytes([index]) * MIB for index in range(13))  # 4 chunks
SOMEBODY_ROLLS_BACK = [
    deployment.WatchDeploymentResponse(phase=deployment.PHASE_ROLLING_BACK, candidate_release=b"\1" * 32),
    deployment.WatchDeploymentResponse(
        phase=deployment.PHASE_IDLE, active_release=b"\1" * 32, outcome=deployment.OUTCOME_ROLLED_BACK
    ),
]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    contents = {
        "engine/model.bin": MODEL,
        "engine/copy.bin": MODEL,
        "engine/empty": b"",
        "tokenizer/t.json": b"{}",
    }
    return make_artifact(tmp_path / "artifact", contents, KEY)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def address(board: Board) -> AsyncIterator[Address]:
    async with simulated_device(board) as address:
        yield address


async def send(address: Address, artifact: Artifact, **options: object) -> PushResult:
    async with DeviceClient(address, None) as client:
        return await push(client, artifact.folder, KEY.public_key(), **options)  # type: ignore[arg-type]


async def test_a_push_sends_everything_once_and_ends_with_the_verdict(
    board: Board, address: Address, artifact: Artifact
) -> None:
    result = await send(address, artifact)
    assert result.release == artifact.digest
    assert result.sent_bytes == board.received_bytes == len(MODEL) + 2
    assert board.part_bytes_max == 256 * 1024
    assert result.verdict is not None
    assert result.verdict.committed
    assert [probe.name for probe in result.verdict.probes] == ["ready"]


async def test_files_of_the_same_content_are_one_blob(
    board: Board, address: Address, artifact: Artifact
) -> None:
    result = await send(address, artifact)
    assert (result.plan.artifact_bytes, result.plan.blobs) == (2 * len(MODEL) + 2, 3)
    assert board.calls.count("WriteBlob") == 3


async def test_the_plan_is_told_before_the_first_byte(
    board: Board, address: Address, artifact: Artifact
) -> None:
    seen: list[tuple[TransferPlan, int]] = []
    listener = TransferListener(planned=lambda plan: seen.append((plan, board.received_bytes)))
    result = await send(address, artifact, listener=listener)
    assert seen == [(result.plan, 0)]
    assert result.plan.missing_bytes == len(MODEL) + 2


async def test_progress_rises_to_the_total(address: Address, artifact: Artifact) -> None:
    seen: list[Sent] = []
    await send(address, artifact, listener=TransferListener(sent=seen.append))
    done = [sent.bytes for sent in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total_bytes == len(MODEL) + 2
    assert all(sent.bytes_per_second > 0 for sent in seen)


async def test_a_second_push_sends_no_blob_bytes(board: Board, address: Address, artifact: Artifact) -> None:
    await send(address, artifact)
    board.received_bytes = 0
    result = await send(address, artifact)
    assert (result.sent_bytes, board.received_bytes, result.plan.missing_bytes) == (0, 0, 0)
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_changed_stretch_sends_its_chunk_alone(
    board: Board, address: Address, artifact: Artifact, tmp_path: Path
) -> None:
    await send(address, artifact)
    board.received_bytes = 0
    changed = MODEL[: 5 * MIB] + b"!" + MODEL[5 * MIB + 1 :]
    result = await send(address, make_artifact(tmp_path / "new", {"engine/model.bin": changed}, KEY))
    assert result.sent_bytes == board.received_bytes == 4 * MIB


async def test_a_dropped_link_resends_one_chunk_at_most(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.drop_after_bytes = [5 * MIB, 3 * MIB, 6 * MIB]
    result = await send(address, artifact)
    assert result.resumptions == 3
    assert board.received_bytes <= len(MODEL) + 2 + 3 * 4 * MIB
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_busy_upload_is_waited_for(board: Board, address: Address, artifact: Artifact) -> None:
    board.refuse = {"WriteBlob": [BUSY, BUSY]}
    result = await send(address, artifact)
    assert 1 <= result.resumptions <= 2  # two streams at once may both meet it
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_restarted_agent_is_found_again(board: Board, artifact: Artifact) -> None:
    async with simulated_device(board) as address:
        pushing = asyncio.create_task(send(address, artifact))
        while board.received_bytes < 5 * MIB:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.5)
    async with simulated_device(board, port=address.port):
        result = await pushing
    assert result.resumptions >= 1
    assert board.received_bytes <= len(MODEL) + 2 + 4 * MIB
    assert result.verdict is not None
    assert result.verdict.committed


async def test_patience_ends_when_nothing_moves(board: Board, address: Address, artifact: Artifact) -> None:
    board.refuse = {"WriteBlob": [UNAVAILABLE] * 100}
    with pytest.raises(OutsideError, match=r"The link to .* broke off"):
        await send(address, artifact, patience_seconds=0.3)
    assert 1 < board.calls.count("WriteBlob") < 100


async def test_a_release_can_be_staged_only(board: Board, address: Address, artifact: Artifact) -> None:
    result = await send(address, artifact, activate=False)
    assert result.verdict is None
    assert "ActivateRelease" not in board.calls
    assert board.staged == {bytes.fromhex(artifact.digest)}


async def test_an_altered_artifact_is_refused_before_the_first_call(
    board: Board, address: Address, artifact: Artifact
) -> None:
    (artifact.folder / "tokenizer/t.json").write_bytes(b"[]")
    with pytest.raises(InputError, match=r"t\.json.*altered after signing"):
        await send(address, artifact)
    assert board.calls == []


async def test_a_blob_lost_before_staging_is_sent_again(
    board: Board, address: Address, artifact: Artifact
) -> None:
    missing = (grpc.StatusCode.FAILED_PRECONDITION, "BLOB_MISSING")
    board.refuse = {"StageRelease": [missing] * 3}  # when asked first, after the sending, asked again
    result = await send(address, artifact)
    assert result.verdict is not None
    assert board.calls.count("FindMissingBlobs") >= 3


async def test_a_refusal_at_staging_keeps_its_reason(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.refuse = {"StageRelease": [(grpc.StatusCode.FAILED_PRECONDITION, "MEMORY_BUDGET")]}
    with pytest.raises(RefusedError) as caught:
        await send(address, artifact)
    assert caught.value.reason == Reason.REASON_MEMORY_BUDGET
    assert "ActivateRelease" not in board.calls
    assert board.received_bytes == 0  # the board said so before the first byte travelled


async def test_another_transition_is_reported_and_not_mistaken_for_ours(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.refuse = {"ActivateRelease": [BUSY]}
    with pytest.raises(BusyError):
        await send(address, artifact)


async def test_a_board_that_goes_back_to_this_very_release_is_followed(
    board: Board, address: Address, artifact: Artifact
) -> None:
    ours = bytes.fromhex(artifact.digest)
    back = deployment.WatchDeploymentResponse(
        phase=deployment.PHASE_ROLLING_BACK, active_release=ours, candidate_release=ours
    )
    rest = deployment.WatchDeploymentResponse(
        phase=deployment.PHASE_IDLE, active_release=ours, outcome=deployment.OUTCOME_ROLLED_BACK
    )
    board.refuse = {"ActivateRelease": [BUSY]}
    board.active, board.verdict = ours, [back, rest]
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.committed


@pytest.mark.parametrize("busy", [1, 3])
async def test_a_change_that_ended_before_it_was_looked_at_is_no_reason_to_give_up(
    board: Board, address: Address, artifact: Artifact, busy: int
) -> None:
    ours = bytes.fromhex(artifact.digest)
    board.refuse = {"ActivateRelease": [BUSY] * busy}
    board.active = ours
    board.verdict = [deployment.WatchDeploymentResponse(phase=deployment.PHASE_IDLE, active_release=ours)]
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.committed
    assert board.calls.count("ActivateRelease") == busy + 1


async def test_an_activation_whose_answer_was_lost_is_followed(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.refuse = {"ActivateRelease": [UNAVAILABLE, BUSY]}
    board.active = bytes.fromhex(artifact.digest)
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.committed


@pytest.mark.parametrize("state", ["CANDIDATE", "DENIED"])
async def test_an_activation_whose_answer_was_lost_and_that_fails_is_rolled_back(
    board: Board, address: Address, artifact: Artifact, state: str
) -> None:
    ours = bytes.fromhex(artifact.digest)
    board.refuse = {"ActivateRelease": [UNAVAILABLE, BUSY]}
    board.releases = [
        deployment.Release(release=ours, state=deployment.ReleaseState.Value(f"RELEASE_STATE_{state}"))
    ]
    board.verdict = SOMEBODY_ROLLS_BACK
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.outcome == "rolled_back"


@pytest.mark.parametrize("denied_before", [False, True])
async def test_where_ours_was_not_heard_and_another_change_is_under_way_that_is_reported(
    board: Board, address: Address, artifact: Artifact, denied_before: bool
) -> None:
    board.refuse = {"ActivateRelease": [UNAVAILABLE, BUSY]}
    if denied_before:
        denied = deployment.RELEASE_STATE_DENIED
        board.releases = [deployment.Release(release=bytes.fromhex(artifact.digest), state=denied)]
    board.verdict = SOMEBODY_ROLLS_BACK  # not ours
    with pytest.raises(BusyError):
        await send(address, artifact, force=denied_before)
    assert board.calls.count("WatchDeployment") == 1  # looked at, and not followed


async def test_a_link_that_breaks_while_asking_whose_change_it_is_is_waited_for(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.refuse = {"ActivateRelease": [UNAVAILABLE, BUSY, BUSY], "ListReleases": [UNAVAILABLE] * 6}
    board.active = bytes.fromhex(artifact.digest)
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.committed
    assert board.calls.count("ActivateRelease") == 3


async def test_a_rolled_back_release_says_why(board: Board, address: Address, artifact: Artifact) -> None:
    probe = deployment.ProbeResult(name="golden_prompt", required=True, detail="expected [1, 2], got [1, 3]")
    board.verdict = [
        deployment.WatchDeploymentResponse(phase=deployment.PHASE_PROBATION, message="probing"),
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\1" * 32, message="rolled back to 010101010101",
            outcome=deployment.OUTCOME_ROLLED_BACK, probes=[probe],
        ),
    ]  # fmt: skip
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.outcome == "rolled_back"
    assert result.verdict.active_release == "01" * 32
    assert result.verdict.probes[0].detail == "expected [1, 2], got [1, 3]"


async def test_a_watch_that_drops_is_taken_up_again(
    board: Board, address: Address, artifact: Artifact
) -> None:
    board.refuse = {"WatchDeployment": [UNAVAILABLE, UNAVAILABLE]}
    result = await send(address, artifact)
    assert result.verdict is not None
    assert result.verdict.committed
