"""Answers of the agent as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewright.sizes import format_bytes
from edgewright.v1.deployment_pb2 import (
    CollectGarbageResponse,
    GetDeviceResponse,
    Phase,
    Release,
    ReleaseState,
    ScrubStoreResponse,
)
from edgewright.v1.inference_pb2 import Completion, FinishReason
from edgewright_builder.device.releases import Deleted
from edgewright_builder.device.verdict import ProbeVerdict
from edgewright_builder.push.push import PushResult
from edgewright_builder.push.transfer import TransferPlan

RELEASE_COLUMNS = ("release", "name", "version", "counter", "size", "engine", "state")
PROBE_COLUMNS = ("probe", "kind", "result", "detail")


def plan_line(plan: TransferPlan) -> str:
    """What will travel."""
    if not plan.missing_bytes:
        return f"  nothing to send: the board has all {format_bytes(plan.artifact_bytes)} of it"
    if plan.is_adapter:
        return f"  adapter: {format_bytes(plan.travelling_bytes)} to send, its base stays where it is"
    if plan.delta_bytes is not None:
        sizes = f"{format_bytes(plan.delta_bytes)} instead of {format_bytes(plan.missing_bytes)}"
        return f"  delta against release {plan.delta_base[:12]}: {sizes} to send"
    missing, blobs = format_bytes(plan.missing_bytes), f"{plan.missing_blobs} of {plan.blobs} files"
    if plan.how == "full":
        return f"  full: {missing} to send ({blobs})"
    return f"  chunks: {missing} of {format_bytes(plan.artifact_bytes)} to send, the rest is there ({blobs})"


def push_lines(result: PushResult) -> list[str]:
    """What has travelled, and what the board says of the memory."""
    memory = result.memory
    peak = f"{format_bytes(memory.predicted_peak_bytes)} ± {format_bytes(memory.prediction_error_bytes)}"
    lines = [f"  predicted peak {peak} of the board's {format_bytes(memory.budget_bytes)}"]
    if result.sent_bytes:
        rate = result.sent_bytes / result.transfer_seconds / 1e6
        resumed = f", resumed {result.resumptions} times" if result.resumptions else ""
        lines.insert(0, f"  sent {format_bytes(result.sent_bytes)} at {rate:.1f} MB/s, verified{resumed}")
    return lines


def probe_row(probe: ProbeVerdict) -> tuple[str, ...]:
    """One row under `PROBE_COLUMNS`."""
    kind, result = "required" if probe.required else "wanted", "passed" if probe.passed else "FAILED"
    return probe.name, kind, result, probe.detail


def release_row(release: Release) -> tuple[str, ...]:
    """One row under `RELEASE_COLUMNS`."""
    state = ReleaseState.Name(release.state).removeprefix("RELEASE_STATE_").lower()
    served_by = f"adapter of {release.base_release.hex()[:12]}" if release.base_release else release.engine
    return (
        release.release.hex()[:12], release.name, release.version, str(release.release_counter),
        format_bytes(release.size_bytes), served_by, state,
    )  # fmt: skip


def _rotten(files: int) -> str:
    return (
        f"; {files} file(s) found corrupt, in quarantine: push again, then gc --quarantine" if files else ""
    )


def device_facts(device: GetDeviceResponse, releases: list[Release]) -> list[tuple[str, str]]:
    """A board as names and values."""
    names = {release.release: f"{release.name} {release.version} " for release in releases}

    def named(release: bytes) -> str:
        return f"{names.get(release, '')}({release.hex()[:12]})" if release else "none"

    total, free = format_bytes(device.memory_total_bytes), format_bytes(device.memory_available_bytes)
    engines = [
        (f"engine {engine.kind}", engine.version if engine.available else f"not available: {engine.detail}")
        for engine in device.engines
    ]
    return [
        ("phase", Phase.Name(device.phase).removeprefix("PHASE_").lower().replace("_", " ")),
        ("active", named(device.active_release)),
        *[("note", note) for note in device.notes],
        ("previous", named(device.previous_release)),
        ("board", f"{device.board_model or 'no device tree'}, {device.machine}, {device.cpu_cores} cores"),
        ("memory", f"{free} free of {total}"),
        ("budget", format_bytes(device.budget_bytes)),
        ("store", f"{format_bytes(device.store_free_bytes)} free{_rotten(device.quarantined_files)}"),
        *engines,
        *[("kernel", kernel) for kernel in device.engine_kernels],
        ("agent", device.agent_version),
    ]


def completion_line(done: Completion) -> str:
    """What a generation took."""
    reason = FinishReason.Name(done.finish_reason).removeprefix("FINISH_REASON_").lower()
    parts = [
        f"{done.prompt_tokens} + {done.generated_tokens} tokens, {reason}",
        f"TTFT {done.time_to_first_token_seconds * 1e3:.0f} ms",
    ]
    if done.HasField("time_per_output_token_seconds") and done.time_per_output_token_seconds > 0:
        parts.append(f"{1 / done.time_per_output_token_seconds:.1f} tokens/s")
    if done.HasField("energy"):
        joules = done.energy.prefill_joules + done.energy.decode_joules
        parts.append(f"{joules:.2f} J ({done.energy.rail})")
    return " · ".join(parts)


def deleted_lines(deleted: Sequence[Deleted]) -> list[str]:
    """A line for each release that was deleted, or would be."""
    lines = []
    for each in deleted:
        release, done = each.release, "would delete" if each.freed_bytes is None else "deleted"
        named = f"{done} {release.release.hex()[:12]} ({release.name} {release.version})"
        lines.append(
            named if each.freed_bytes is None else f"{named}: freed {format_bytes(each.freed_bytes)}"
        )
    return lines


def deleted_document(deleted: Sequence[Deleted]) -> dict[str, Any]:
    """The same for scripts; nothing where no release was to be deleted."""
    rows = [{"release": each.release.release.hex(), "freed_bytes": each.freed_bytes} for each in deleted]
    return {"deleted_releases": rows} if rows else {}


def garbage_lines(garbage: CollectGarbageResponse, *, dry_run: bool) -> list[str]:
    """What a collection freed, and what it left."""
    done = "would free" if dry_run else "freed"
    lines = [
        f"{done} {format_bytes(garbage.freed_bytes)}: {garbage.blobs} files, {garbage.uploads} unfinished uploads"
    ]
    if garbage.kept_recent_bytes:
        kept = format_bytes(garbage.kept_recent_bytes)
        lines.append(f"kept {kept} that no release needs: a push asked about them within the hour")
    if garbage.quarantine_bytes:
        lines.append(f"in quarantine: {format_bytes(garbage.quarantine_bytes)}; --quarantine removes it")
    return lines


def scrub_line(found: ScrubStoreResponse) -> str:
    """What a scrub found."""
    read = f"{found.blobs} files, {format_bytes(found.bytes)} read"
    if not (found.corrupt_blobs or found.damaged_releases):
        return f"{read}; all are what their digests say"
    corrupt = ", ".join(blob.hex()[:12] for blob in found.corrupt_blobs) or "none"
    damaged = ", ".join(release.hex()[:12] for release in found.damaged_releases) or "none"
    return f"{read}; corrupt and in quarantine: {corrupt}; releases to push again: {damaged}"
