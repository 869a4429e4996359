"""The link to one agent: opens channels when they are needed, and turns failed calls into our own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from edgewright.address import Address
from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1.deployment_pb2_grpc import DeploymentServiceStub
from edgewright.v1.inference_pb2_grpc import InferenceServiceStub
from edgewright.v1.telemetry_pb2_grpc import TelemetryServiceStub
from edgewright.v1.trust_pb2_grpc import TrustServiceStub
from edgewright_builder.device_client.answer_checks import ImplausibleError, checks_of
from edgewright_builder.device_client.certificate_clock import clock_problem
from edgewright_builder.device_client.channel import client_certificate, open_channel
from edgewright_builder.device_client.failures import (
    LinkError,
    distrusts,
    error_of,
    is_refused,
)
from edgewright_builder.device_client.name_resolution import numeric_target
from edgewright_builder.device_client.stalled_streams import SilenceWatch

if TYPE_CHECKING:
    from edgewright.v1.deployment_pb2_grpc import DeploymentServiceAsyncStub
    from edgewright.v1.inference_pb2_grpc import InferenceServiceAsyncStub
    from edgewright.v1.telemetry_pb2_grpc import TelemetryServiceAsyncStub
    from edgewright.v1.trust_pb2_grpc import TrustServiceAsyncStub

DEADLINE_SECONDS = 30.0
SILENCE_SECONDS_MAX = 900.0  # of a stream: in a queue, while a long prompt is read, or a mirror is slow

Response = TypeVar("Response", bound=Message)
ResponseItem = TypeVar("ResponseItem", bound=Message, covariant=True)


class Stream(Protocol[ResponseItem]):
    """A call that answers with many messages."""

    def __aiter__(self) -> AsyncIterator[ResponseItem]: ...
    def cancel(self) -> bool: ...  # noqa: D102


class Link:
    """Channels to one agent and the stubs on the newest of them, for calls that are made once.

    `reached` says whether any call has got through, so that address and credentials are right.
    """

    deployment: DeploymentServiceAsyncStub
    inference: InferenceServiceAsyncStub
    telemetry: TelemetryServiceAsyncStub
    trust: TrustServiceAsyncStub

    def __init__(self, address: Address, credentials: Path | None) -> None:
        self.reached = False
        self._address = address
        self._credentials = credentials
        self._channels: list[grpc.aio.Channel] = []  # calls use the last; others may still carry older calls
        self._target: str | None = None
        self._dialling = asyncio.Lock()
        self._link_broke = False

    async def close(self) -> None:
        """Ends the calls under way and closes the channels."""
        for channel in self._channels:
            await channel.close()

    async def channel(self) -> grpc.aio.Channel:
        """Returns the channel to call on, opened if need be. Raises LinkError."""
        await self._dial()
        return self._channels[-1]

    async def once(
        self,
        method: Callable[[], Callable[..., Awaitable[Response]]],
        request: Message,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Response:
        """Returns the answer to one call. Raises the errors of `failures`."""
        await self._dial()
        try:
            response = await method()(request, timeout=deadline_seconds)
            self.reached = True
            checks_of(request)(response)
            return response
        except grpc.aio.AioRpcError as error:
            raise await self.own_error(error) from None
        except ImplausibleError as error:
            raise self._implausible(error) from None

    async def stream(
        self,
        method: Callable[[], Callable[..., Stream[Any]]],
        request: Message,
        silence_seconds: float | None = SILENCE_SECONDS_MAX,
    ) -> AsyncGenerator[Any, None]:
        """Yields the answers. Raises OutsideError after `silence_seconds` without progress."""
        await self._dial()
        call, check = method()(request), checks_of(request)
        with SilenceWatch(call, silence_seconds) as watch:
            try:
                async for response in call:
                    self.reached = True
                    if check(response):
                        watch.moved()
                    yield response
            except grpc.aio.AioRpcError as error:
                raise await self.own_error(error) from None
            except asyncio.CancelledError:
                if watch.is_over:
                    raise self._silent(silence_seconds) from None
                raise
            except ImplausibleError as error:
                raise self._implausible(error) from None
            finally:
                call.cancel()

    async def own_error(self, call: grpc.aio.AioRpcError) -> EdgewrightError:
        """Returns our error for a failed call; a broken link is dialled again at the next one."""
        error = error_of(call, self._address, secure=self._credentials is not None, reached=self.reached)
        self._link_broke = self._link_broke or isinstance(error, LinkError)
        if self._credentials is not None and not self.reached and (is_refused(call) or distrusts(call)):
            files = client_certificate(self._credentials), self._credentials / "ca.pem"
            problem = await clock_problem(self._address, *files, is_refused=is_refused(call))
            return OutsideError(problem) if problem else error
        return error

    async def _dial(self) -> None:
        """Opens the channel; another one if the link broke and the host has other addresses by now."""
        async with self._dialling:
            if self._channels and not self._link_broke:
                return
            try:
                target = await numeric_target(self._address)
            except LinkError:
                if not self._channels:
                    raise
                return  # the name may be gone as long as the board is away; its addresses may still be right
            self._link_broke = False
            if not self._channels or target != self._target:
                self._target = target
                self._use(open_channel(self._address, self._credentials, target))

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channels.append(channel)
        self.deployment = DeploymentServiceStub(channel)
        self.inference = InferenceServiceStub(channel)
        self.telemetry = TelemetryServiceStub(channel)
        self.trust = TrustServiceStub(channel)

    def _implausible(self, error: ImplausibleError) -> OutsideError:
        return OutsideError(
            f"{self._address} answers what no agent says: {error}. Check that an Edgewright agent of this version "
            "listens there, and its log."
        )

    def _silent(self, seconds: float | None) -> OutsideError:
        return OutsideError(
            f"{self._address} keeps the call open and made no progress for {seconds:.0f} s; see the agent's log and "
            "restart it."
        )
