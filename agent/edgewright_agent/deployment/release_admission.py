"""Decides whether an artifact becomes a release here: signature, device, engine, counter, memory, blobs, contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from edgewright.errors import EdgewrightError, RefusedError
from edgewright.manifest import Manifest, manifest_digest, parse_manifest
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.contents import check_contents
from edgewright_agent.deployment.state import State
from edgewright_agent.engines import EngineInfo
from edgewright_agent.store import StagedRelease, Store
from edgewright_agent.store.adapter_bases import check_base
from edgewright_agent.trust import Trust


@dataclass(frozen=True)
class AdmissionPolicy:
    """What this board demands of an artifact."""

    profile_id: str
    budget_bytes: int
    trust: Trust
    engines: Callable[[], Sequence[EngineInfo]]

    def notes(self, active: StagedRelease) -> list[str]:
        """Returns what would be refused of the active release if it came now, and is served all the same (decision
        0048).
        """
        profiles = active.manifest.device_profiles
        if self.profile_id in profiles:
            return []
        return [
            f"Release {active.digest[:12]} was made for {', '.join(profiles)}; this agent was started with the profile "
            f"{self.profile_id}. It goes on serving; start the agent with the right --profile, or push one for this."
        ]


@dataclass(frozen=True)
class AdmissionVerdict:
    """The figures of the decision, whatever it is; `refusal` is set if it is no."""

    digest: str
    manifest: Manifest
    memory_available_bytes: int
    missing_blobs: tuple[str, ...] = ()
    refusal: EdgewrightError | None = None


def judge_admission(
    policy: AdmissionPolicy, store: Store, state: State, manifest_bytes: bytes, envelope: bytes
) -> AdmissionVerdict:
    """Returns the verdict on a manifest and its signature.

    Raises InputError (`MANIFEST_INVALID`, `SIGNATURE_INVALID`), RefusedError (`KEY_UNTRUSTED`, `REVOKED`,
    `TRUST_EXPIRED`): before those hold, nothing in the manifest means anything.
    """
    policy.trust.check_release(manifest_bytes, envelope)
    manifest = parse_manifest(manifest_bytes)
    store.learn_chunkings(manifest)
    digest = manifest_digest(manifest_bytes)
    available_bytes = int(psutil.virtual_memory().available)
    missing = tuple(store.absent_blobs(manifest))
    try:
        _check_device(policy, manifest)
        _check_engine(policy.engines(), manifest)
        activation_rules.check_counter(state, manifest.release_counter)
        check_base(manifest, store.releases())
        _check_memory(policy, manifest)
        _check_blobs(missing)
        check_contents(manifest, store.verified_blob)
    except RefusedError as refusal:
        return AdmissionVerdict(digest, manifest, available_bytes, missing, refusal)
    return AdmissionVerdict(digest, manifest, available_bytes)


def _check_device(policy: AdmissionPolicy, manifest: Manifest) -> None:
    if policy.profile_id not in manifest.device_profiles:
        made_for = ", ".join(manifest.device_profiles)
        message = (
            f"The artifact was made for {made_for}; this board is {policy.profile_id}. Build it for this one."
        )
        raise RefusedError(message, Reason.REASON_DEVICE_MISMATCH)


def _check_engine(engines: Iterable[EngineInfo], manifest: Manifest) -> None:
    found = {engine.kind: engine for engine in engines}
    wanted = found.get(manifest.engine.kind)
    if wanted is None or not wanted.available:
        why = wanted.detail if wanted is not None else "this agent does not know it"
        message = f"The artifact needs the engine {manifest.engine.kind}, which can't run here: {why}."
        raise RefusedError(message, Reason.REASON_ENGINE_UNAVAILABLE)


def _check_memory(policy: AdmissionPolicy, manifest: Manifest) -> None:
    """Refuses an artifact that the prediction itself puts above the budget.

    The error bar is left out on purpose. What lies within it is tried, and the measured peak decides (the probe
    `peak_memory`). Refusing it here would refuse releases that boards have measured and serve.
    """
    predicted_bytes = manifest.memory.predicted_peak_bytes
    if predicted_bytes > policy.budget_bytes:
        message = (
            f"The artifact is predicted to take {format_bytes(predicted_bytes)} at its peak, "
            f"{format_bytes(predicted_bytes - policy.budget_bytes)} more than this board's budget of "
            f"{format_bytes(policy.budget_bytes)}. Build the artifact with a smaller budget."
        )
        raise RefusedError(message, Reason.REASON_MEMORY_BUDGET)


def _check_blobs(missing: Sequence[str]) -> None:
    if missing:
        message = (
            f"{len(missing)} blobs of the artifact are not here, first {missing[0][:12]}. Send them first."
        )
        raise RefusedError(message, Reason.REASON_BLOB_MISSING)
