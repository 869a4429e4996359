"""Guards every call: who may make it, how many at once, whether it has a deadline, and how its errors travel."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.services.callers import Context, certificate_of
from edgewright_agent.services.certificate_limits import CallLimits
from edgewright_agent.services.connections import ConnectionGuard
from edgewright_agent.services.roles import check_role
from edgewright_agent.services.translation.status import abort
from edgewright_agent.services.uploads.parts import parse_write_request
from edgewright_agent.trust import Trust

OUR_CALLS = "/edgewright.v1."
_log = logging.getLogger(__name__)

# The one call that carries gigabytes has a parser of its own.
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "/edgewright.v1.DeploymentService/WriteBlob": parse_write_request
}

Check = Callable[[str, bool, Context], None]  # method, is it unary, context


def require_deadline(method: str, unary: bool, context: Context) -> None:
    """Requires a deadline of unary calls: a client that is gone must not hold the board."""
    if unary and method.startswith(OUR_CALLS) and context.time_remaining() is None:
        message = f"{method} came without a deadline; set one, for instance 30 seconds."
        raise InputError(message, Reason.REASON_DEADLINE_MISSING)


def require_role(method: str, unary: bool, context: Context) -> None:
    """Requires the role that `roles` lists for this call."""
    if method.startswith(OUR_CALLS):  # health and reflection: any certificate of our authority
        check_role(method, certificate_of(context.auth_context()))


def refuse_revoked(trust: Trust) -> Check:
    """Returns a check that refuses every call of a certificate that the trust document revokes."""

    def check(method: str, unary: bool, context: Context) -> None:
        certificate = certificate_of(context.auth_context())
        if certificate is not None:
            trust.check_certificate(certificate.sha256)

    return check


def _parser(method: str, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns a parser that raises InputError for bytes that are no message."""

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise InputError(f"What came is no request of {method} ({error}).") from None

    return parsed


def _outside(method: str, error: OSError) -> OutsideError:
    """Returns what a client is told of a failure of the system that nothing below has put into a sentence."""
    _log.error("%s failed", method, exc_info=error)
    return OutsideError(f"{method} failed on the board: {error}. Check its disk, and see the agent's log.")


class Guard(grpc.aio.ServerInterceptor):
    """Runs the checks before each call, counts it while it is open, and turns our errors into statuses."""

    def __init__(self, *checks: Check) -> None:
        self._checks = checks
        self._limits = CallLimits()
        self.connections: ConnectionGuard | None = None  # known once the server has a port

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the call's handler with the checks around it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # an unknown method: grpc answers UNIMPLEMENTED
        return self._guarded(handler_call_details.method, handler)

    def _guarded(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        kinds = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        kind = (handler.request_streaming, handler.response_streaming)
        behaviour, make = kinds[kind]
        unary = kind == (False, False)
        guard = self._stream if handler.response_streaming else self._single
        parse = _parser(method, PARSERS.get(method, handler.request_deserializer))
        if handler.request_streaming:
            return make(guard(method, unary, behaviour), parse, handler.response_serializer)
        # Parsed in the guarded call, where a wrong message can be answered.
        guarded = guard(method, unary, lambda request, context: behaviour(parse(request), context))
        return make(guarded, None, handler.response_serializer)

    def _single(self, method: str, unary: bool, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            try:
                with self._admitted(method, unary, context):
                    return await behaviour(request, context)
            except EdgewrightError as error:
                await abort(context, error)
            except OSError as error:
                await abort(context, _outside(method, error))

        return call

    def _stream(self, method: str, unary: bool, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                with self._admitted(method, unary, context):
                    async for response in behaviour(request, context):
                        yield response
            except EdgewrightError as error:
                await abort(context, error)
            except OSError as error:
                await abort(context, _outside(method, error))

        return call

    @contextlib.contextmanager
    def _admitted(self, method: str, unary: bool, context: Context) -> Iterator[None]:
        for check in self._checks:
            check(method, unary, context)
        certificate = certificate_of(context.auth_context())
        if self.connections is not None:
            self.connections.called(context.peer(), certificate)
        with self._limits.hold(certificate):
            yield
