"""Translates errors: one table from Reason to status code, and `google.rpc` details beside it."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError
from edgewright.v1.common_pb2 import Reason

DOMAIN = "edgewright"
RETRY_SECONDS = 1
# A client of gRPC drops trailers of more than 8 KiB by chance, and the code with them. A refusal's details take up to
# 5 KiB. A sentence travels twice: percent-encoded, where a byte beyond printable ASCII is three, and in base64.
SENTENCE_BYTES_MAX = 2048
CUT = " […]"

_CODES: dict[Reason.ValueType, StatusCode] = {
    Reason.REASON_INVALID_ARGUMENT: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_DEADLINE_MISSING: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_PERMISSION: StatusCode.PERMISSION_DENIED,
    Reason.REASON_DIGEST_MISMATCH: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_MANIFEST_INVALID: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_SIGNATURE_INVALID: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_KEY_UNTRUSTED: StatusCode.PERMISSION_DENIED,
    Reason.REASON_DEVICE_MISMATCH: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_DOWNGRADE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_CONTENT_REFUSED: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_MEMORY_BUDGET: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_DISK_SPACE: StatusCode.RESOURCE_EXHAUSTED,
    Reason.REASON_BLOB_MISSING: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_RELEASE_UNKNOWN: StatusCode.NOT_FOUND,
    Reason.REASON_RELEASE_IN_USE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_RELEASE_DENIED: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_BUSY: StatusCode.ABORTED,
    Reason.REASON_NO_ACTIVE_RELEASE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_NO_PREVIOUS_RELEASE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_ENGINE_UNAVAILABLE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_ENGINE_STARTING: StatusCode.UNAVAILABLE,
    Reason.REASON_ENGINE_FAILED: StatusCode.UNAVAILABLE,
    Reason.REASON_CONTEXT_EXCEEDED: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_OVERLOADED: StatusCode.RESOURCE_EXHAUSTED,
    Reason.REASON_UPLOAD_UNKNOWN: StatusCode.NOT_FOUND,
    Reason.REASON_STORE_CORRUPT: StatusCode.DATA_LOSS,
    Reason.REASON_DELTA_BASE_MISSING: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_BASE_MISSING: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_ADAPTER_MISMATCH: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_REVOKED: StatusCode.PERMISSION_DENIED,
    Reason.REASON_TRUST_INVALID: StatusCode.INVALID_ARGUMENT,
    Reason.REASON_TRUST_STALE: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_TRUST_EXPIRED: StatusCode.FAILED_PRECONDITION,
    Reason.REASON_NOT_AWAITING_CONFIRMATION: StatusCode.FAILED_PRECONDITION,
}
_RETRY = frozenset({
    Reason.REASON_BUSY, Reason.REASON_OVERLOADED, Reason.REASON_ENGINE_STARTING, Reason.REASON_ENGINE_FAILED,
})  # fmt: skip


def code_of(error: EdgewrightError) -> StatusCode:
    """Returns the status code of an error."""
    if error.reason in _CODES:
        return _CODES[error.reason]
    if isinstance(error, InputError):
        return StatusCode.INVALID_ARGUMENT
    return StatusCode.UNAVAILABLE if isinstance(error, OutsideError) else StatusCode.FAILED_PRECONDITION


def status_of(error: EdgewrightError, *details: Message) -> status_pb2.Status:
    """Returns the whole status: code, sentence, ErrorInfo, RetryInfo where trying again can help, then `details`.

    A sentence that is too long to travel is cut.
    """
    reason = Reason.Name(error.reason).removeprefix("REASON_")
    info: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    if error.reason in _RETRY:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(error.retry_seconds if isinstance(error, BusyError) else RETRY_SECONDS)
        info.append(retry)
    packed = [_pack(detail) for detail in (*info, *details)]
    return status_pb2.Status(code=code_of(error).value[0], message=that_travels(str(error)), details=packed)


def that_travels(sentence: str) -> str:
    """Returns a sentence whose two copies in the trailers take at most `SENTENCE_BYTES_MAX`."""
    if _travelling_bytes(sentence) <= SENTENCE_BYTES_MAX:
        return sentence
    room, kept = SENTENCE_BYTES_MAX - _travelling_bytes(CUT), 0
    while kept < len(sentence) and (room := room - _travelling_bytes(sentence[kept])) >= 0:
        kept += 1
    return sentence[:kept] + CUT


def _travelling_bytes(text: str) -> int:
    """Returns the bytes of a text percent-encoded and, one in three rounded up, in base64."""
    encoded = text.encode("utf-8", errors="replace")
    printable = sum(0x20 <= byte <= 0x7E and byte != ord("%") for byte in encoded)
    return printable + 3 * (len(encoded) - printable) + -(-4 * len(encoded) // 3)


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], error: EdgewrightError, *details: Message
) -> NoReturn:
    """Ends the call with this error."""
    status = rpc_status.to_status(status_of(error, *details))
    await context.abort(status.code, status.details, status.trailing_metadata)


def _pack(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
