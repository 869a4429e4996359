"""The board's own verdict on a transition: what became of it, and what the probes found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.errors import OutsideError
from edgewright.v1.deployment_pb2 import Outcome, Phase, ProbeResult, WatchDeploymentResponse
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.device_client.messages import from_message, printable
from edgewright_builder.show.sheet import Lines, Sheet, shown

ANSWER_SECONDS = 600.0  # vLLM compiles for minutes before it answers
ANSWER_POLL_SECONDS = 0.5
RESTS_MAX = 10  # an engine that dies after its probation has the board change once more
REPORTS_MAX = 1_000  # of one change
SERVING = (Phase.PHASE_IDLE, Phase.PHASE_STAGED)
AT_REST = (*SERVING, Phase.PHASE_SAFE)


@dataclass(frozen=True)
class ProbeVerdict:
    """One check of the probation. A failed required one rolls back."""

    name: str
    required: bool
    passed: bool
    detail: str

    def row(self) -> tuple[str, ...]:
        """Returns name, kind, result and detail as people read them."""
        kind, result = "required" if self.required else "wanted", "passed" if self.passed else "FAILED"
        return self.name, kind, result, self.detail


@shown
@dataclass(frozen=True)
class DeploymentVerdict:
    """How a transition ended."""

    outcome: str  # committed, rolled_back, failed
    active_release: str  # in hex; empty if none
    message: str
    probes: tuple[ProbeVerdict, ...]

    @property
    def committed(self) -> bool:
        """Whether the board now serves what was asked for."""
        return self.outcome == "committed"

    def _sheet(self) -> Sheet:
        serving = f"serves {self.active_release[:12]}" if self.active_release else "serves nothing"
        return Sheet((Lines([f"{self.outcome.replace('_', ' ')}: {self.message}; the board {serving}"]),))


async def watch_verdict(
    client: DeviceClient, release: bytes, patience: Patience, note: Callable[[str], None]
) -> DeploymentVerdict:
    """Follows a transition to `release` until the board is at rest and answers, across dropped links and restarts.

    Raises OutsideError where the release is active and its engine does not answer within `ANSWER_SECONDS`, and for a
    board that contradicts itself `RESTS_MAX` times.
    """
    probes: Sequence[ProbeResult] = ()  # of the candidate: a roll-back's own reports hold none
    patience.moved()
    for _ in range(RESTS_MAX):
        last, seen = await _watch_until_rest(client, release, patience, note)
        probes = seen or probes
        verdict = verdict_of(last, release, probes)
        if not verdict.committed or await _answers(client, release, patience, note):
            return verdict
    raise OutsideError(
        f"{client.address} has come to rest {RESTS_MAX} times and says each time that release {release.hex()[:12]} "
        "is active, and then that it is not; see the agent's log."
    )


async def _watch_until_rest(
    client: DeviceClient, release: bytes, patience: Patience, note: Callable[[str], None]
) -> tuple[WatchDeploymentResponse, Sequence[ProbeResult]]:
    """Returns the board's last report, and the last probes of the candidate."""
    last: WatchDeploymentResponse | None = None
    probes: Sequence[ProbeResult] = ()
    reports: set[bytes] = set()  # one that came before is no movement: a board may report the same for ever
    while True:
        try:
            async for event in client.watch_deployment():
                if (report := event.SerializeToString(deterministic=True)) not in reports:
                    reports.add(report)
                    patience.moved()
                if len(reports) > REPORTS_MAX:
                    raise OutsideError(
                        f"{client.address} has reported {REPORTS_MAX} changes and does not come to rest; "
                        "see the agent's log."
                    )
                if event.message and (last is None or event.message != last.message):
                    note(printable(event.message))
                probes = event.probes or probes
                last = event
                if event.awaiting_confirmation and event.candidate_release == release:
                    await client.confirm(release)  # that this call arrives is what was to be shown
            if last is not None and last.phase in AT_REST:
                return last, probes
            raise LinkError(f"{client.address} ended its report before it was at rest; see the agent's log.")
        except LinkError as error:
            await patience.wait(error)


async def _answers(
    client: DeviceClient, release: bytes, patience: Patience, note: Callable[[str], None]
) -> bool:
    """Waits until the release answers requests; False as soon as it is no longer the active one.

    An agent that was just started is at rest with an active release long before its engine is ready.
    """
    since, was_told = time.monotonic(), False
    while True:
        try:
            if (await client.get_snapshot()).active_release == release:
                return True
            device = await client.get_device()
            if device.active_release != release or device.phase not in SERVING:
                return False
            patience.moved()
        except LinkError as error:
            await patience.wait(error)
            continue
        if time.monotonic() - since > ANSWER_SECONDS:
            raise OutsideError(
                f"Release {release.hex()[:12]} is active on {client.address}, and its engine has not answered for "
                f"{ANSWER_SECONDS:.0f} s; see `edgewright status {client.address}` and the agent's log."
            )
        if not was_told:
            note("the engine is being started")
            was_told = True
        await asyncio.sleep(ANSWER_POLL_SECONDS)


def verdict_of(
    last: WatchDeploymentResponse, release: bytes, probes: Sequence[ProbeResult]
) -> DeploymentVerdict:
    """Returns the verdict in the last report of a board at rest; raises OutsideError if it tells of no transition."""
    if last.active_release == release and last.phase != Phase.PHASE_SAFE:
        outcome = Outcome.OUTCOME_COMMITTED
    elif last.outcome in (Outcome.OUTCOME_ROLLED_BACK, Outcome.OUTCOME_FAILED):
        outcome = last.outcome
    else:
        raise OutsideError(
            "The board is at rest without the release, and reports no failure; activate it again."
        )
    return DeploymentVerdict(
        Outcome.Name(outcome).removeprefix("OUTCOME_").lower(),
        last.active_release.hex(),
        printable(last.message),
        tuple(from_message(ProbeVerdict, probe) for probe in probes),
    )
