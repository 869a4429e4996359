from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.v1 import deployment_pb2 as deployment
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.fleet.inventory import FleetDevice
from edgewright_builder.fleet.journal import RolloutJournal
from edgewright_builder.fleet.rollout import RolloutListener, RolloutReport, RolloutSettings, roll_out
from edgewright_builder.fleet.wave_rules import DeviceOutcome, Thresholds, wave_ends
from edgewright_builder.push.push import PushResult, push_verified
from tests.support.built_artifacts import make_artifact
from tests.support.device_simulator import Board, simulated_device
from tests.support.prompt_retries import prompt_retries

__all__ = ["prompt_retries"]  # the fixture
pytestmark = pytest.mark.usefixtures("prompt_retries")

DEVICES = 12
ROLLED_BACK = [
    deployment.WatchDeploymentResponse(
        phase=deployment.PHASE_IDLE, outcome=deployment.OUTCOME_ROLLED_BACK, active_release=b"\7" * 32,
        message="rolled back to 070707070707",
        probes=[deployment.ProbeResult(name="golden_prompt", required=True, detail="other tokens")],
    )
]  # fmt: skip


class Fleet:
    """Simulated boards and what it takes to update them."""

    def __init__(
        self, boards: list[Board], devices: list[FleetDevice], artifact: Artifact, journal: Path
    ) -> None:
        self.boards = boards
        self.devices = devices
        self._artifact = artifact
        self._journal = journal
        self.under_way = 0
        self.under_way_max = 0

    async def update(self, device: FleetDevice) -> PushResult:
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            async with DeviceClient(parse_address(device.host), None) as client:
                return await push_verified(client, self._artifact, patience_seconds=0.1)
        finally:
            self.under_way -= 1

    async def roll_out(
        self, waves: str, *, abort_over: float = 0.05, proceed_at: float = 0.9, retry_failed: bool = False,
        parallel: int = 4, timeout_seconds: float = 30.0, listener: RolloutListener = RolloutListener(),
    ) -> RolloutReport:  # fmt: skip
        names = [device.name for device in self.devices]
        journal = RolloutJournal.open(self._journal, self._artifact.digest, names, retry_failed=retry_failed)
        settings = RolloutSettings(
            wave_ends(waves, len(names)), Thresholds(abort_over, proceed_at), parallel, timeout_seconds
        )
        return await roll_out(self.devices, self.update, journal, settings, listener)

    def updated(self) -> list[int]:
        return [number for number, board in enumerate(self.boards) if "ActivateRelease" in board.calls]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    artifact = make_artifact(
        tmp_path / "artifact", {"engine/model.bin": bytes(4096)}, Ed25519PrivateKey.generate()
    )
    boards = [Board() for _ in range(DEVICES)]
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(simulated_device(board)) for board in boards]
        devices = [FleetDevice(host=str(address), name=f"d{n}") for n, address in enumerate(addresses)]
        yield Fleet(boards, devices, artifact, tmp_path / "journal.jsonl")


def outcomes(report: RolloutReport) -> dict[str, DeviceOutcome]:
    return {name: result.outcome for name, result in report.results.items()}


async def test_every_device_of_every_wave_is_updated(fleet: Fleet) -> None:
    waves: list[tuple[int, int]] = []
    report = await fleet.roll_out(
        "1,25%,100%",
        listener=RolloutListener(wave_begins=lambda number, devices: waves.append((number, devices))),
    )
    assert report.complete
    assert waves == [(1, 1), (2, 2), (3, 9)]
    assert all(result.sent_bytes == 4096 for result in report.results.values())


async def test_no_more_devices_are_updated_at_once_than_allowed(fleet: Fleet) -> None:
    await fleet.roll_out("100%", parallel=3)
    assert fleet.under_way_max == 3


async def test_a_bad_first_wave_stops_the_rollout_and_leaves_the_rest_alone(fleet: Fleet) -> None:
    fleet.boards[0].verdict = ROLLED_BACK
    report = await fleet.roll_out("1,100%")
    assert not report.complete
    assert report.stopped == "1 of 1 devices did not keep the release (100 %, the limit is 5 %)"
    assert outcomes(report) == {"d0": DeviceOutcome.ROLLED_BACK}
    assert report.results["d0"].message == "rolled back to 070707070707; golden_prompt: other tokens"
    assert len(report.untouched) == DEVICES - 1
    assert fleet.updated() == [0]


async def test_the_stop_rule_acts_inside_a_wave(fleet: Fleet) -> None:
    for board in fleet.boards[:4]:
        board.verdict = ROLLED_BACK
    report = await fleet.roll_out("100%", parallel=1, abort_over=0.5)
    assert list(report.results) == ["d0"]


async def test_what_was_under_way_does_not_resume_a_stopped_rollout(fleet: Fleet) -> None:
    update, failed = fleet.update, asyncio.Event()

    async def the_second_ends_after_the_first_failed(device: FleetDevice) -> PushResult:
        if device.name == "d1":
            await failed.wait()
        return await update(device)

    fleet.boards[0].verdict = ROLLED_BACK
    fleet.update = the_second_ends_after_the_first_failed  # type: ignore[method-assign]
    ended = RolloutListener(device_ended=lambda device, result: failed.set())
    report = await fleet.roll_out("100%", parallel=2, abort_over=0.5, listener=ended)
    assert outcomes(report) == {"d0": DeviceOutcome.ROLLED_BACK, "d1": DeviceOutcome.COMMITTED}
    assert report.stopped == "1 of 1 devices did not keep the release (100 %, the limit is 50 %)"


async def test_failures_within_the_threshold_do_not_stop_a_rollout(fleet: Fleet) -> None:
    fleet.boards[7].verdict = ROLLED_BACK  # begun eighth, three beside it: at the earliest one of five
    report = await fleet.roll_out("1,100%", abort_over=0.2)
    assert report.stopped is None
    assert not report.complete
    assert [name for name, outcome in outcomes(report).items() if outcome is not DeviceOutcome.COMMITTED] == [
        "d7"
    ]


async def test_a_refusal_is_a_failure_with_the_boards_sentence(fleet: Fleet) -> None:
    fleet.boards[0].refuse["StageRelease"] = [
        (grpc.StatusCode.FAILED_PRECONDITION, "REASON_MEMORY_BUDGET")
    ] * 20
    report = await fleet.roll_out("1,100%")
    assert outcomes(report) == {"d0": DeviceOutcome.REFUSED}
    assert report.results["d0"].message


@pytest.mark.parametrize("reason", ["DISK_SPACE", "STORE_CORRUPT", "ENGINE_FAILED"])
async def test_what_failed_on_a_board_counts_as_failed_with_its_sentence(fleet: Fleet, reason: str) -> None:
    fleet.boards[0].refuse["StageRelease"] = [(grpc.StatusCode.UNAVAILABLE, reason)]
    report = await fleet.roll_out("1,100%")
    assert outcomes(report) == {"d0": DeviceOutcome.FAILED}
    assert report.results["d0"].message == "StageRelease is refused by the simulator"
    assert report.stopped == "1 of 1 devices did not keep the release (100 %, the limit is 5 %)"


async def test_a_link_that_breaks_does_not_condemn_the_release(fleet: Fleet) -> None:
    fleet.boards[0].refuse["StageRelease"] = [(grpc.StatusCode.UNAVAILABLE, "")] * 100
    report = await fleet.roll_out("1,100%")
    assert outcomes(report) == {"d0": DeviceOutcome.UNREACHABLE}
    assert report.stopped == "0 of the wave's 1 devices committed, and 1 must before the next wave"


async def test_a_file_error_on_the_host_fails_its_device_and_interrupts_no_other(fleet: Fleet) -> None:
    update = fleet.update

    async def fails_for_one(device: FleetDevice) -> PushResult:
        if device.name == "d2":
            raise FileNotFoundError(2, "No such file or directory", "kept/model.bin")
        return await update(device)

    fleet.update = fails_for_one  # type: ignore[method-assign]
    report = await fleet.roll_out("100%", abort_over=1.0)
    assert outcomes(report)["d2"] is DeviceOutcome.FAILED
    assert "kept/model.bin" in report.results["d2"].message
    assert sum(outcome is DeviceOutcome.COMMITTED for outcome in outcomes(report).values()) == DEVICES - 1


async def test_an_unreachable_board_holds_the_rollout_until_it_is_back(fleet: Fleet) -> None:
    there = fleet.devices[1]
    fleet.devices[1] = there.model_copy(update={"host": "127.0.0.1:1"})
    report = await fleet.roll_out("3,100%")
    assert outcomes(report)["d1"] is DeviceOutcome.UNREACHABLE
    assert report.stopped == "2 of the wave's 3 devices committed, and 3 must before the next wave"

    fleet.devices[1] = there
    calls = len(fleet.boards[0].calls)
    assert (await fleet.roll_out("3,100%")).complete
    assert len(fleet.boards[0].calls) == calls  # what has committed is left alone


async def test_a_silent_device_times_out_and_counts_as_failed(fleet: Fleet) -> None:
    async def never(device: FleetDevice) -> Any:
        await asyncio.sleep(60)

    fleet.update = never  # type: ignore[method-assign]
    report = await fleet.roll_out("1,100%", timeout_seconds=0.05)
    assert outcomes(report) == {"d0": DeviceOutcome.TIMED_OUT}


async def test_a_stopped_rollout_stays_stopped_until_failures_are_to_be_retried(fleet: Fleet) -> None:
    fleet.boards[0].verdict = ROLLED_BACK
    await fleet.roll_out("1,100%")
    fleet.boards[0].verdict = None
    assert (await fleet.roll_out("1,100%")).stopped is not None
    assert fleet.updated() == [0]
    assert (await fleet.roll_out("1,100%", retry_failed=True)).complete


async def test_a_rollout_killed_in_the_middle_goes_on_where_it_was(fleet: Fleet) -> None:
    ended = asyncio.Event()
    task = asyncio.create_task(
        fleet.roll_out(
            "100%", parallel=1, listener=RolloutListener(device_ended=lambda device, result: ended.set())
        )
    )
    await ended.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(fleet.boards[0].calls)
    assert (await fleet.roll_out("100%")).complete
    assert len(fleet.boards[0].calls) == before
