"""Translates between messages and plain values, and checks what a client may get wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgewright.chunk_delta import Delta, Stretch, check_delta
from edgewright.errors import EdgewrightError, InputError
from edgewright.manifest import CHUNK_BYTES_MAX
from edgewright.sizes import format_bytes
from edgewright.v1 import common_pb2, deployment_pb2, inference_pb2
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State
from edgewright_agent.deployment.state_writer import DeploymentStatus
from edgewright_agent.engines import EngineInfo, GenerationRequest, ScoreItem
from edgewright_agent.store import Blob, ChunkRange, Garbage, Missing, StagedRelease
from edgewright_agent.store.scrub import Scrubbed

BLOBS_MAX = 10_000
CHUNKS_MAX = 1_000_000
STOPS_MAX = 8
ITEMS_MAX = 256
CONFIRM_SECONDS_MAX = 24 * 3600.0
CONTINUATIONS_MAX = 64

_PHASES = {
    Phase.IDLE: deployment_pb2.PHASE_IDLE,
    Phase.ACTIVATING: deployment_pb2.PHASE_ACTIVATING,
    Phase.PROBATION: deployment_pb2.PHASE_PROBATION,
    Phase.ROLLING_BACK: deployment_pb2.PHASE_ROLLING_BACK,
    Phase.SAFE: deployment_pb2.PHASE_SAFE,
    Phase.STAGED: deployment_pb2.PHASE_STAGED,
}
_OUTCOMES = {
    ChangeOutcome.NONE: deployment_pb2.OUTCOME_UNSPECIFIED,
    ChangeOutcome.COMMITTED: deployment_pb2.OUTCOME_COMMITTED,
    ChangeOutcome.ROLLED_BACK: deployment_pb2.OUTCOME_ROLLED_BACK,
    ChangeOutcome.FAILED: deployment_pb2.OUTCOME_FAILED,
}


def sha256_from(data: bytes) -> str:
    """Returns a digest in hex. Raises InputError unless it has 32 bytes."""
    if len(data) != 32:
        raise InputError(f"A SHA-256 has 32 bytes; {len(data)} came.")
    return data.hex()


def sha256_to(digest: str | None) -> bytes:
    """Returns the bytes of a digest; empty for none."""
    return bytes.fromhex(digest or "")


def blob_from(message: deployment_pb2.Blob) -> Blob:
    """Returns a blob whose chunks add up; raises InputError."""
    size_bytes = message.digest.size_bytes
    chunks = tuple(_chunk_from(chunk) for chunk in message.chunks)
    blob = Blob(sha256_from(message.digest.sha256), size_bytes, chunks)
    total_bytes = sum(size for _, size in chunks)
    if total_bytes != size_bytes:
        raise InputError(f"Blob {blob.sha256[:12]}: its chunks hold {total_bytes} bytes, not {size_bytes}.")
    return blob


def blobs_from(messages: Iterable[deployment_pb2.Blob]) -> list[Blob]:
    """Returns all blobs of a question, within its bounds; raises InputError."""
    messages = list(messages)
    chunks = sum(len(message.chunks) for message in messages)
    if len(messages) > BLOBS_MAX or chunks > CHUNKS_MAX:
        raise InputError(
            f"{len(messages)} blobs with {chunks} chunks; at most {BLOBS_MAX} and {CHUNKS_MAX} in one call."
        )
    return [blob_from(message) for message in messages]


def delta_from(message: deployment_pb2.ChunkDelta, blob: Blob) -> Delta:
    """Returns how a chunk of `blob` is made from what is here, within bounds; raises InputError."""
    if message.chunk >= len(blob.chunks):
        raise InputError(f"A delta of chunk {message.chunk} came; the blob has {len(blob.chunks)} chunks.")
    base = tuple(
        Stretch(each.offset_bytes, each.size_bytes, sha256_from(each.blob_sha256), each.blob_offset_bytes)
        for each in message.base
    )
    delta = Delta(message.chunk, message.size_bytes, base)
    check_delta(delta, blob.chunks[message.chunk][1])
    return delta


def missing_to(missing: Missing) -> deployment_pb2.MissingBlob:
    """Translates field for field."""
    return deployment_pb2.MissingBlob(
        sha256=sha256_to(missing.sha256),
        chunks=ranges_to(missing.chunks),
        missing_bytes=missing.missing_bytes,
    )


def ranges_to(ranges: Iterable[ChunkRange]) -> list[deployment_pb2.ChunkRange]:
    """Translates field for field."""
    return [deployment_pb2.ChunkRange(first=span.first, count=span.count) for span in ranges]


def refusal_to(error: EdgewrightError | None) -> deployment_pb2.Refusal | None:
    """Returns why a stream was refused."""
    return None if error is None else deployment_pb2.Refusal(reason=error.reason, message=str(error))


def engine_to(engine: EngineInfo) -> deployment_pb2.EngineInfo:
    """Translates field for field."""
    return deployment_pb2.EngineInfo(**vars(engine))


def phase_to(status: DeploymentStatus) -> deployment_pb2.Phase.ValueType:
    """Returns the wire's word for where the board is. While it prepares an engine, that is what it does."""
    return deployment_pb2.PHASE_PREPARING if status.preparing else _PHASES[status.state.phase]


def status_to(status: DeploymentStatus) -> deployment_pb2.WatchDeploymentResponse:
    """Returns one step of a change."""
    state = status.state
    probes = [
        deployment_pb2.ProbeResult(
            name=probe.name, required=probe.required, passed=probe.passed, detail=probe.detail
        )
        for probe in status.probes
    ]
    return deployment_pb2.WatchDeploymentResponse(
        phase=phase_to(status),
        active_release=sha256_to(state.active),
        candidate_release=sha256_to(state.candidate),
        attempt=state.attempts,
        message=status.preparing or state.message,
        outcome=_OUTCOMES[state.outcome],
        probes=probes,
        awaiting_confirmation=state.awaiting_confirmation,
    )


def confirm_seconds_from(message: deployment_pb2.ActivateReleaseRequest) -> float:
    """Returns how long the host may take to confirm; raises InputError out of bounds."""
    seconds = message.confirm_within_seconds
    if not 0 <= seconds <= CONFIRM_SECONDS_MAX:
        raise InputError(f"confirm_within_seconds is {seconds:g}; it must be 0 to {CONFIRM_SECONDS_MAX:g}.")
    return seconds


def garbage_to(garbage: Garbage) -> deployment_pb2.CollectGarbageResponse:
    """Returns what a collection removed, or would remove."""
    return deployment_pb2.CollectGarbageResponse(
        freed_bytes=garbage.freed_bytes,
        blobs=len(garbage.blobs),
        uploads=len(garbage.uploads),
        kept_recent_bytes=garbage.kept_recent_bytes,
        quarantine_bytes=garbage.quarantine_bytes,
    )


def scrubbed_to(scrubbed: Scrubbed) -> deployment_pb2.ScrubStoreResponse:
    """Returns how far a scrub has come."""
    return deployment_pb2.ScrubStoreResponse(
        blobs=scrubbed.blobs,
        bytes=scrubbed.bytes,
        total_bytes=scrubbed.total_bytes,
        corrupt_blobs=[sha256_to(sha256) for sha256 in scrubbed.corrupt],
        damaged_releases=[sha256_to(digest) for digest in scrubbed.damaged],
        done=scrubbed.done,
    )


def release_to(release: StagedRelease, state: State) -> deployment_pb2.Release:
    """Returns a staged release and what it is to the board."""
    manifest = release.manifest
    return deployment_pb2.Release(
        release=sha256_to(release.digest),
        name=manifest.name,
        version=manifest.version,
        release_counter=manifest.release_counter,
        size_bytes=manifest.size_bytes,
        predicted_peak_bytes=manifest.memory.predicted_peak_bytes,
        engine=manifest.engine.kind,
        state=_release_state(release.digest, state),
        base_release=sha256_to(release.manifest.base),
        prediction_basis=_prediction_basis(manifest.lineage),
    )


def _prediction_basis(lineage: Mapping[str, Any]) -> str:
    basis = {key: lineage[key] for key in ("architecture", "configuration") if key in lineage}
    return json.dumps(basis, sort_keys=True) if basis else ""


def generation_from(message: inference_pb2.GenerateRequest) -> GenerationRequest:
    """Returns a request with values in bounds; raises InputError."""
    messages = [{"role": each.role, "content": each.content} for each in message.chat.messages]
    chat = message.WhichOneof("input") == "chat"
    if not (messages if chat else message.prompt):
        raise InputError("The prompt is empty; give a prompt or a chat with at least one message.")
    temperature = message.temperature if message.HasField("temperature") else 0.0
    top_p = message.top_p if message.HasField("top_p") else 1.0
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; it must be 0 or more.")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}; it must be above 0 and at most 1.")
    if len(message.stop) > STOPS_MAX or "" in message.stop:
        raise InputError(f"{len(message.stop)} stop strings; at most {STOPS_MAX}, none of them empty.")
    return GenerationRequest(
        prompt=None if chat else message.prompt,
        messages=messages if chat else None,
        max_tokens=message.max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
    )


def items_from(message: inference_pb2.ScoreRequest) -> list[ScoreItem]:
    """Returns items within the call's bounds; raises InputError."""
    most = max((len(item.continuations) for item in message.items), default=0)
    if len(message.items) > ITEMS_MAX or most > CONTINUATIONS_MAX:
        raise InputError(
            f"{len(message.items)} items with up to {most} continuations; at most {ITEMS_MAX} and "
            f"{CONTINUATIONS_MAX} in one call."
        )
    return [ScoreItem(item.context, tuple(item.continuations)) for item in message.items]


def _chunk_from(message: common_pb2.Digest) -> tuple[str, int]:
    if not 0 < message.size_bytes <= CHUNK_BYTES_MAX:
        raise InputError(
            f"A chunk has 1 byte to {format_bytes(CHUNK_BYTES_MAX)}; {message.size_bytes:,} bytes came."
        )
    return sha256_from(message.sha256), message.size_bytes


def _release_state(digest: str, state: State) -> deployment_pb2.ReleaseState.ValueType:
    if digest == state.active:
        return deployment_pb2.RELEASE_STATE_ACTIVE
    if digest == state.candidate:
        return deployment_pb2.RELEASE_STATE_CANDIDATE
    if digest in state.denied:
        return deployment_pb2.RELEASE_STATE_DENIED
    if digest == state.previous:
        return deployment_pb2.RELEASE_STATE_PREVIOUS
    return deployment_pb2.RELEASE_STATE_STAGED
