"""One request through the gate, the engine and the meter. gRPC, the OpenAI API and the benchmark all use it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus

from edgewright.errors import BusyError, InputError
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import ServingRelease
from edgewright_agent.deployment.fair_request_slots import OURSELVES
from edgewright_agent.deployment.refusal_throttle import Refusals
from edgewright_agent.engines import ContinuationScore, Finish, GenerationRequest, Reply, ScoreItem, Token
from edgewright_agent.telemetry import Operation, RequestSummary, RequestWindow, ServedBy
from edgewright_agent.telemetry.sampling.monitor import Telemetry

REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)  # by the engine


@dataclass(frozen=True)
class Completed:
    """The last item of a generation, with its measurements."""

    finish: Finish
    summary: RequestSummary


class Inference:
    """Sends requests to the release that serves, and measures them.

    `client` names who asks, so that each gets its share: a certificate, or the address of a peer without one.
    """

    def __init__(self, deployer: Deployer, telemetry: Telemetry) -> None:
        self._deployer = deployer
        self._telemetry = telemetry
        self._refusals = Refusals()

    async def generate(
        self, request: GenerationRequest, client: str = OURSELVES, *, patient: bool = False
    ) -> AsyncGenerator[Token | Completed, None]:
        """Yields tokens as they come, then one Completed. `aclose()` frees the engine at once.

        Raises as `Deployer.serving`, `Refusals.wait`, `RequestSlots.admit` and `Engine.generate`.
        """
        operation: Operation = "text_completion" if request.messages is None else "chat"
        async with (
            self._admitted(operation, client, patient=patient) as (serving, window),
            contextlib.aclosing(serving.engine.generate(request, client)) as events,
        ):
            async for event in events:
                if isinstance(event, Token):
                    window.token(event.at_seconds)
                    yield event
                else:
                    summary = window.end(event.prompt_tokens, event.generated_tokens, event.reason)
                    yield Completed(event, summary)

    async def score(
        self, items: Sequence[ScoreItem], client: str = OURSELVES
    ) -> list[list[ContinuationScore]]:
        """Returns log-likelihoods, in the order of `items`. Raises as `generate`."""
        async with self._slot(client) as serving:
            return await serving.engine.score(items, client)

    def ask(self, route: str) -> AbstractAsyncContextManager[Reply]:
        """Gives the engine's answer to a GET, which takes no slot. Raises as `Deployer.serving` and `Engine.relay`."""
        return self._deployer.serving().engine.relay("GET", route)

    @contextlib.asynccontextmanager
    async def relay(
        self, route: str, body: bytes, client: str = OURSELVES
    ) -> AsyncGenerator[tuple[Reply, RequestWindow], None]:
        """Gives the engine's HTTP answer to a POST, and the meter to read it through. Raises as `generate`."""
        operation: Operation = "chat" if route.endswith("/chat/completions") else "text_completion"
        async with self._admitted(operation, client) as (serving, window):
            began_seconds = time.monotonic()
            async with serving.engine.relay("POST", route, body, client) as reply:
                if reply.status in REFUSED:
                    self._refusals.note(client, time.monotonic() - began_seconds)
                yield reply, window

    @contextlib.asynccontextmanager
    async def _admitted(
        self, operation: Operation, client: str, *, patient: bool = False
    ) -> AsyncGenerator[tuple[ServingRelease, RequestWindow], None]:
        serving = self._deployer.serving()  # a request that nobody could serve is not counted
        window = self._telemetry.request(_served_by(serving), operation)
        try:
            async with self._slot(client, patient=patient) as serving:
                window.served_by = _served_by(serving)
                yield serving, window
        except BusyError:
            window.reject("busy")
            raise
        except InputError:
            window.reject("invalid")
            raise
        except Exception:
            window.fail()
            raise
        finally:
            window.end()  # nothing more if it ended above; else its client left

    @contextlib.asynccontextmanager
    async def _slot(self, client: str, *, patient: bool = False) -> AsyncGenerator[ServingRelease, None]:
        """Gives a slot of the release that serves once it is free; meanwhile another release may have taken over."""
        while True:
            await self._refusals.wait(client)
            serving = self._deployer.serving()
            async with serving.slots.admit(client, patient=patient):
                if serving is not self._deployer.serving() or self._refusals.pause_seconds(client):
                    continue
                began_seconds = time.monotonic()
                try:
                    yield serving
                except InputError:
                    self._refusals.note(client, time.monotonic() - began_seconds)
                    raise
                return


def _served_by(serving: ServingRelease) -> ServedBy:
    release = serving.release
    return ServedBy(release.digest, release.manifest.name, serving.engine.kind)
