"""The board's own verdict on a transition: what became of it, and what the probes found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.errors import OutsideError
from edgewright.v1.deployment_pb2 import Outcome, Phase, ProbeResult, WatchDeploymentResponse
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.failures import LinkError
from edgewright_builder.device.patience import Patience

AT_REST = (Phase.PHASE_IDLE, Phase.PHASE_STAGED, Phase.PHASE_SAFE)


@dataclass(frozen=True)
class Probe:
    """One check of the probation. A failed required one rolls back."""

    name: str
    required: bool
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verdict:
    """How a transition ended."""

    outcome: str  # committed, rolled_back, failed
    active_release: str  # in hex; empty if none
    message: str
    probes: tuple[Probe, ...]

    @property
    def committed(self) -> bool:
        """Whether the board now serves what was asked for."""
        return self.outcome == "committed"


async def watch_verdict(
    client: DeviceClient, release: bytes, patience: Patience, note: Callable[[str], None]
) -> Verdict:
    """Follows a transition to `release` until the board is at rest, across dropped links and restarts."""
    last: WatchDeploymentResponse | None = None
    probes: Sequence[ProbeResult] = ()  # of the candidate: a roll-back's own reports hold none
    patience.moved()
    while True:
        try:
            async for event in client.watch_deployment():
                patience.moved()
                if event.message and (last is None or event.message != last.message):
                    note(event.message)
                probes = event.probes or probes
                last = event
                if event.awaiting_confirmation and event.candidate_release == release:
                    await client.confirm(release)  # that this call arrives is what was to be shown
            if last is not None and last.phase in AT_REST:
                return verdict_of(last, release, probes)
            raise LinkError(f"{client.address} ended its report before it was at rest; see the agent's log.")
        except LinkError as error:
            await patience.wait(error)


def verdict_of(last: WatchDeploymentResponse, release: bytes, probes: Sequence[ProbeResult]) -> Verdict:
    """The verdict in the last report of a board at rest; raises OutsideError if it tells of no transition."""
    if last.active_release == release and last.phase != Phase.PHASE_SAFE:
        outcome = Outcome.OUTCOME_COMMITTED
    elif last.outcome in (Outcome.OUTCOME_ROLLED_BACK, Outcome.OUTCOME_FAILED):
        outcome = last.outcome
    else:
        raise OutsideError(
            "The board is at rest without the release, and reports no failure; activate it again."
        )
    return Verdict(
        Outcome.Name(outcome).removeprefix("OUTCOME_").lower(),
        last.active_release.hex(),
        last.message,
        tuple(Probe(probe.name, probe.required, probe.passed, probe.detail) for probe in probes),
    )
