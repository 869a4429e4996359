"""Whether an answer can be true: what no agent says ends the call in one sentence, before a figure is made of it.

`checks_of(request)` gives the checks of one call. They know nothing of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry

SHA256_BYTES = 32
YEAR_3000_UNIX_SECONDS = 32_503_680_000.0
LOG_LIKELIHOOD_MAX = 1e-3  # a probability of one, and what float32 adds to it
ANSWER_TOKENS_MAX = 1_000_000  # where a request leaves the number to the board's context
CHANGES_MAX = 1_000  # of a deployment, until it rests
ENTRIES_MAX = 10_000_000  # of a board's record: one a second for four months
# Measured against a zero that is not the least: an idle baseline, a current that flows back, the freezing point.
_SIGNED = ("net_", "celsius", "log_likelihood", "watts", "mean_watts", "baseline_watts")
_ANY_NUMBER = ("seed",)
_UNSIGNED_MAX = {
    FieldDescriptor.CPPTYPE_UINT32: 2**31,
    FieldDescriptor.CPPTYPE_UINT64: 2**63,
}  # more was negative


class ImplausibleError(Exception):
    """What of an answer no agent says, as a clause: "it names a blob that nobody asked about"."""


Check = Callable[[Message], bool]  # whether this answer gets on from the one before; raises ImplausibleError


def checks_of(request: Message) -> Callable[[Message | None], bool]:
    """Returns the check of each answer to `request`, in order. gRPC gives None for bytes that it can't decode."""
    kind = type(request)
    check = _STATEFUL[kind](request) if kind in _STATEFUL else _stateless(request)

    def decoded(response: Message | None) -> bool:
        if response is None:
            raise ImplausibleError("its bytes are no message of ours")
        return check(response)

    return decoded


def _stateless(request: Message) -> Check:
    rule = _CHECKS.get(type(request))

    def check(response: Message) -> bool:
        require_possible(response)
        if rule is not None:
            rule(request, response)
        return True

    return check


def require_possible(message: Message) -> None:
    """Raises ImplausibleError for a NaN, a negative counter or size, a ratio above one, or a digest of wrong length."""
    for field, value in message.ListFields():
        items = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
        for item in items:
            if isinstance(item, Message):
                require_possible(item)
            else:
                _require_possible_value(field, item)


def _require_possible_value(field: FieldDescriptor, value: object) -> None:
    name = field.name
    if isinstance(value, bytes):
        if len(value) not in (0, SHA256_BYTES):
            raise ImplausibleError(f"{name} has {len(value)} bytes; a SHA-256 has {SHA256_BYTES}")
    elif isinstance(value, float):
        if not math.isfinite(value) or (value < 0 and not name.startswith(_SIGNED)):
            raise ImplausibleError(f"{name} is {value:g}")
        if (name.endswith("_ratio") and value > 1) or (
            name == "unix_seconds" and value > YEAR_3000_UNIX_SECONDS
        ):
            raise ImplausibleError(f"{name} is {value:g}")
    elif isinstance(value, int) and name not in _ANY_NUMBER:
        limit = _UNSIGNED_MAX.get(field.cpp_type)
        if limit is not None and value >= limit:
            raise ImplausibleError(f"{name} is {value}: a negative number, read as one without a sign")


def _missing_blobs(
    request: deployment.FindMissingBlobsRequest, response: deployment.FindMissingBlobsResponse
) -> None:
    asked = {blob.digest.sha256: blob for blob in request.blobs}
    for missing in response.missing:
        blob = asked.pop(missing.sha256, None)
        if blob is None:
            raise ImplausibleError(f"it lacks blob {missing.sha256.hex()[:12]}, which nobody asked about")
        end = 0
        for span in missing.chunks:
            if span.first < end or not span.count or span.first + span.count > len(blob.chunks):
                raise ImplausibleError(
                    f"it lacks chunks {span.first} to {span.first + span.count - 1} of a blob of {len(blob.chunks)}"
                )
            end = span.first + span.count
        if missing.missing_bytes > blob.digest.size_bytes:
            raise ImplausibleError(
                f"it lacks {missing.missing_bytes} bytes of a blob of {blob.digest.size_bytes}"
            )


def _scores(request: inference.ScoreRequest, response: inference.ScoreResponse) -> None:
    expected = [len(item.continuations) for item in request.items]
    actual = [len(item.continuations) for item in response.items]
    if expected != actual:
        raise ImplausibleError(
            f"it gives {sum(actual)} scores for {len(actual)} questions; {sum(expected)} for {len(expected)} were asked"
        )
    for item in response.items:
        for score in item.continuations:
            if score.log_likelihood > LOG_LIKELIHOOD_MAX:
                raise ImplausibleError(f"a log-likelihood is {score.log_likelihood:g}, above zero")


def _release(
    request: Message, response: deployment.RollBackResponse | deployment.StageReleaseResponse
) -> None:
    if not response.release:
        raise ImplausibleError("it names no release")


def _generation(request: inference.GenerateRequest) -> Check:
    tokens_max = request.max_tokens or ANSWER_TOKENS_MAX
    tokens, has_ended = 0, False

    def check(response: Message) -> bool:
        nonlocal tokens, has_ended
        assert isinstance(response, inference.GenerateResponse)
        tokens += len(response.deltas)
        if has_ended:
            raise ImplausibleError("it goes on after the end of the text")
        if tokens > tokens_max:
            raise ImplausibleError(f"it sends more than the {tokens_max} tokens that were asked for")
        has_ended = response.HasField("completion")
        if has_ended:
            require_possible(response.completion)
            if response.completion.generated_tokens > tokens_max:
                raise ImplausibleError(
                    f"it counts {response.completion.generated_tokens} tokens of {tokens_max}"
                )
        return bool(response.deltas) or has_ended

    return check


def _benchmark(request: telemetry.RunBenchmarkRequest) -> Check:
    done = 0

    def check(response: Message) -> bool:
        nonlocal done
        assert isinstance(response, telemetry.RunBenchmarkResponse)
        require_possible(response)
        progress, result = response.progress, response.result
        if progress.prompts_done > max(progress.prompts_total, request.prompts):
            raise ImplausibleError(f"it has served {progress.prompts_done} prompts of {request.prompts}")
        if result.prompts + result.prompts_failed > request.prompts:
            raise ImplausibleError(
                f"its result is of {result.prompts} prompts; {request.prompts} were asked for"
            )
        moved, done = progress.prompts_done > done, max(done, progress.prompts_done)
        return moved or response.HasField("result")

    return check


def _fetch(request: deployment.FetchBlobsRequest) -> Check:
    furthest = -1

    def check(response: Message) -> bool:
        nonlocal furthest
        assert isinstance(response, deployment.FetchBlobsResponse)
        require_possible(response)
        moved, furthest = response.fetched_bytes > furthest, max(furthest, response.fetched_bytes)
        return moved

    return check


def _scrub(request: deployment.ScrubStoreRequest) -> Check:
    read, has_ended = 0, False

    def check(response: Message) -> bool:
        nonlocal read, has_ended
        assert isinstance(response, deployment.ScrubStoreResponse)
        require_possible(response)
        if has_ended:
            raise ImplausibleError("it goes on after the end of the scrub")
        if response.bytes > response.total_bytes:
            raise ImplausibleError(f"it has read {response.bytes} bytes of {response.total_bytes}")
        moved, read, has_ended = response.blobs > read, max(read, response.blobs), response.done
        return moved or has_ended

    return check


def _deployment(request: deployment.WatchDeploymentRequest) -> Check:
    changes = 0

    def check(response: Message) -> bool:
        nonlocal changes
        require_possible(response)
        changes += 1
        if changes > CHANGES_MAX and not request.follow:
            raise ImplausibleError(f"it has reported {CHANGES_MAX} changes and does not come to rest")
        return True

    return check


def _telemetry(request: telemetry.WatchTelemetryRequest) -> Check:
    last, entries = 0, 0

    def check(response: Message) -> bool:
        nonlocal last, entries
        assert isinstance(response, telemetry.WatchTelemetryResponse)
        require_possible(response)
        if request.recorded_only:
            entries += 1
            if response.sequence <= last:
                raise ImplausibleError(f"entry {response.sequence} of its record comes after entry {last}")
            if entries > ENTRIES_MAX:
                raise ImplausibleError(f"its record has more than {ENTRIES_MAX} entries")
            last = response.sequence
        return True

    return check


_CHECKS: dict[type[Message], Callable[..., None]] = {
    deployment.FindMissingBlobsRequest: _missing_blobs,
    deployment.StageReleaseRequest: _release,
    deployment.RollBackRequest: _release,
    inference.ScoreRequest: _scores,
}
_STATEFUL: dict[type[Message], Callable[..., Check]] = {
    deployment.FetchBlobsRequest: _fetch,
    deployment.ScrubStoreRequest: _scrub,
    deployment.WatchDeploymentRequest: _deployment,
    inference.GenerateRequest: _generation,
    telemetry.RunBenchmarkRequest: _benchmark,
    telemetry.WatchTelemetryRequest: _telemetry,
}
