"""What a failed call means: gRPC's statuses as the errors of `edgewright.errors`."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from edgewright.address import Address
from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.device_client.messages import printable

ERROR_DOMAIN = "edgewright"
INPUT_REASONS = {
    Reason.REASON_INVALID_ARGUMENT,
    Reason.REASON_DEADLINE_MISSING,
    Reason.REASON_DIGEST_MISMATCH,
    Reason.REASON_MANIFEST_INVALID,
    Reason.REASON_SIGNATURE_INVALID,
    Reason.REASON_CONTEXT_EXCEEDED,
    Reason.REASON_TRUST_INVALID,
}
BUSY_REASONS = {Reason.REASON_BUSY, Reason.REASON_OVERLOADED}
OUTSIDE_REASONS = {
    Reason.REASON_ENGINE_STARTING, Reason.REASON_ENGINE_FAILED, Reason.REASON_STORE_CORRUPT, Reason.REASON_DISK_SPACE,
}  # fmt: skip

_LOST = "Internal error from Core"


class LinkError(OutsideError):
    """The call did not get through, or its answer did not come back; the same call may do so later."""


# For an agent's error whose reason has no name here.
_CLASSES: dict[grpc.StatusCode, type[EdgewrightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.UNAVAILABLE: LinkError,
    grpc.StatusCode.DATA_LOSS: OutsideError,
}


def error_of(call: grpc.aio.AioRpcError, address: Address, *, secure: bool, reached: bool) -> EdgewrightError:
    """Returns the error to raise for a failed call, with the agent's own sentence and Reason if it gave one.

    `secure`: the channel has TLS. `reached`: an earlier call got through, so address and credentials are right.
    """
    reason, retry_seconds = _reason(call)
    details = printable(call.details() or call.code().name)
    if reason is None:
        if call.code() is grpc.StatusCode.UNAVAILABLE:
            return _broken_off(address) if reached else _unreachable(details, address, secure=secure)
        return _without_reason(call.code(), details, address)
    if reason == Reason.REASON_UNSPECIFIED:
        return _CLASSES.get(call.code(), RefusedError)(details)
    return error_for(reason, details, retry_seconds)


def error_for(reason: Reason.ValueType, details: str, retry_seconds: int = 1) -> EdgewrightError:
    """Returns the error an agent raised, from its reason, its sentence and when it may be asked again."""
    if reason in INPUT_REASONS:
        return InputError(details, reason)
    if reason in BUSY_REASONS:
        return BusyError(details, reason, retry_seconds=retry_seconds)
    return (OutsideError if reason in OUTSIDE_REASONS else RefusedError)(details, reason)


def lost_its_status(call: grpc.aio.AioRpcError) -> bool:
    """Whether grpc.aio put its own failure to write in the place of what the agent said."""
    return call.code() is grpc.StatusCode.INTERNAL and _LOST in (call.details() or "")


def distrusts(call: grpc.aio.AioRpcError) -> bool:
    """Whether this side did not accept the peer's certificate."""
    return call.code() is grpc.StatusCode.UNAVAILABLE and "CERTIFICATE" in (call.details() or "")


def is_refused(call: grpc.aio.AioRpcError) -> bool:
    """Whether the peer hung up during the handshake, as it does on a certificate it does not accept."""
    return call.code() is grpc.StatusCode.UNAVAILABLE and _hung_up(call.details() or "")


def _hung_up(details: str) -> bool:
    return "failed to connect" in details and "Socket closed" in details


def _reason(call: grpc.aio.AioRpcError) -> tuple[Reason.ValueType | None, int]:
    """Returns the agent's Reason, None where it gave none, and the seconds after which it may be asked again."""
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        return None, 1  # details that contradict the status are nobody's we know
    reason, retry_seconds = None, 1
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            name = f"REASON_{info.reason}"
            reason = Reason.Value(name) if name in list(Reason.keys()) else Reason.REASON_UNSPECIFIED
        elif detail.Unpack(retry):
            retry_seconds = max(1, retry.retry_delay.seconds)
    return reason, retry_seconds


def _without_reason(code: grpc.StatusCode, details: str, address: Address) -> EdgewrightError:
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return RefusedError(f"{address} refuses this certificate: {details}", Reason.REASON_PERMISSION)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return OutsideError(
            f"What listens at {address} is no Edgewright agent, or an older one: {details}. "
            "Check the port and its version."
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return LinkError(f"{address} did not answer in time; check the board's load and the link to it.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return OutsideError(
            f"{address} answers with a message of more than 4 MiB, which no agent does; check what listens there."
        )
    # grpc.aio reports a write that met the end of its call as an "Internal error from Core".
    cut_off = "RST_STREAM" in details or _LOST in details
    if code is grpc.StatusCode.CANCELLED or cut_off:
        return LinkError(f"{address} cut the call off ({details}); check that the agent is still running.")
    return OutsideError(
        f"{address} failed in an unforeseen way ({code.name}: {details}); see the agent's log."
    )


def _broken_off(address: Address) -> LinkError:
    return LinkError(
        f"The link to {address} broke off; check the network, the board's load, and that the agent is still running."
    )


def _unreachable(details: str, address: Address, *, secure: bool) -> EdgewrightError:
    if "WRONG_VERSION_NUMBER" in details:
        return OutsideError(
            f"The agent at {address} does not speak TLS; on this machine --insecure reaches it."
        )
    if "Hostname Verification" in details:
        message = (
            f"The certificate of {address} is for other hosts: make one with `edgewright keys certificate DIR "
            f"--host {address.host}`, or use a name it has."
        )
        return OutsideError(message)
    if "CERTIFICATE" in details:
        why = details.rsplit("OPENSSL_internal:", 1)[-1].removesuffix(": OK")
        message = (
            f"The certificate of {address} is not trusted ({why}): expected one signed by our ca.pem; "
            "use the credentials that the agent's certificate was made with."
        )
        return OutsideError(message)
    if _hung_up(details):
        if secure:
            message = (
                f"{address} refuses the client certificate: use the credentials the agent was started with."
            )
        else:
            message = f"{address} hangs up on a call without TLS: give --credentials DIR."
        return OutsideError(message)
    if "failed to connect" not in details and "resolving" not in details:
        return _broken_off(address)
    why = details.split(": ")[-1].rstrip("]")
    return LinkError(
        f"No agent can be reached at {address} ({why}): check the address, that `edgewright-agent serve` "
        "runs there, and that no firewall is between."
    )
