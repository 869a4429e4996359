"""The HTTP application: OpenAI's routes, `/health`, and the agent's private ones.

Those are `/v1/score`, `/v1/adapter`, `/v1/together` and `/v1/heartbeat`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.generation import scores, steps
from edgewright_agent.engine_worker.batching.jobs import Generation, Job
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.http.answers import CHAT, COMPLETION, AnswerWriter, Shape
from edgewright_agent.engine_worker.http.connection import (
    Bodies,
    ClientDisconnectedError,
    EventStreamResponse,
    cancelled_when_gone,
    on_client_gone,
    on_failure,
    on_invalid_request,
)
from edgewright_agent.engine_worker.model.backend import Backend, InvalidRequestError
from edgewright_agent.engine_worker.model.grammar import GrammarMaker
from edgewright_agent.engine_worker.requests.bodies import AdapterBody, parse_body
from edgewright_agent.engine_worker.requests.limits import limits_of
from edgewright_agent.engine_worker.requests.parse_request import GenerationTask, Preparer
from edgewright_agent.engine_worker.requests.threads import Preparation, PreparationThreads

Prepared = TypeVar("Prepared")
CLIENT_HEADER = "edgewright-client"  # by which the agent says who asks


@dataclass(frozen=True)
class WorkerSettings:
    """What the application gets when it starts."""

    model: str  # its name in the API
    sequences_max: int  # that share the KV cache at the same time
    spare_bytes: int | None = None  # memory beyond the predicted peak; None: no limit


def make_app(backend: Backend, settings: WorkerSettings) -> Starlette:
    """Returns the application that serves `backend`."""
    routes = Routes(backend, settings)
    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/v1/models", routes.models),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat_completions, methods=["POST"]),
            Route("/v1/score", routes.score, methods=["POST"]),
            Route("/v1/adapter", routes.adapter, methods=["POST"]),
            Route("/v1/together/{tokens:int}", routes.together),
            Route("/v1/heartbeat", routes.heartbeat),
        ],
        exception_handlers={
            InvalidRequestError: on_invalid_request,
            ClientDisconnectedError: on_client_gone,
            Exception: on_failure,
        },
    )


class Routes:
    """One method per route."""

    def __init__(self, backend: Backend, settings: WorkerSettings) -> None:
        prompt_memory, limits = Turns(), limits_of(backend)
        grammars = GrammarMaker(backend.text, backend.vocab_size, backend.eos_ids, settings.spare_bytes)
        self._backend = backend
        self._bodies = Bodies(limits)
        self._threads = PreparationThreads()
        self._preparer = Preparer(backend, settings.model, limits, prompt_memory, grammars)
        self._model_thread = ModelThread(backend, settings.sequences_max, prompt_memory)
        self._created = int(time.time())

    async def health(self, _: Request) -> Response:
        """Answers that the engine is ready: the socket is opened once the model is loaded."""
        return JSONResponse({"status": "ok"})

    async def models(self, _: Request) -> Response:
        """Answers with the one model."""
        model = {
            "id": self._preparer.model,
            "object": "model",
            "created": self._created,
            "owned_by": "edgewright",
            "max_model_len": self._backend.context_tokens,
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def completions(self, request: Request) -> Response:
        """Answers with what follows a text."""
        return await self._answer(
            request, COMPLETION, await self._prepared(request, self._preparer.completion)
        )

    async def chat_completions(self, request: Request) -> Response:
        """Answers with the assistant's next turn."""
        return await self._answer(request, CHAT, await self._prepared(request, self._preparer.chat))

    async def score(self, request: Request) -> Response:
        """Answers with the log-likelihoods of continuations."""
        items = await self._prepared(request, self._preparer.scoring)
        async with cancelled_when_gone(request.receive):
            result = await scores(self._model_thread, self._backend, items, _client(request))
        return JSONResponse({"items": [[asdict(score) for score in item] for item in result]})

    async def adapter(self, request: Request) -> Response:
        """Switches the LoRA adapter. Generations under way end with the one they began with."""
        with self._bodies.hold() as place:
            body = parse_body(AdapterBody, await place.read(request))
        self._backend.use_adapter(None if body.file is None else Path(body.file))
        self._preparer.rename(body.model)
        return JSONResponse({"status": "ok"})

    async def together(self, request: Request) -> Response:
        """Answers how many requests of so many tokens, prompt and answer, are computed at the same time."""
        return JSONResponse({"requests": self._model_thread.together(request.path_params["tokens"])})

    async def heartbeat(self, _: Request) -> Response:
        """Answers once the model has computed something, for a request or for nobody."""
        await self._model_thread.heartbeat()
        return JSONResponse({"status": "ok"})

    async def _prepared(
        self, request: Request, prepare: Callable[[bytearray, Preparation], Prepared]
    ) -> Prepared:
        """Reads the body and prepares it in a thread. A client that leaves meanwhile ends that."""
        self._model_thread.check_room(self._threads.count)
        with self._bodies.hold() as place:
            data = await place.read(request)
            async with cancelled_when_gone(request.receive):
                return await self._threads.run(lambda preparation: prepare(data, preparation))

    async def _answer(self, request: Request, shape: Shape, task: GenerationTask) -> Response:
        self._model_thread.check_room()
        text = self._backend.text
        eos_ids = frozenset() if task.ignore_eos else self._backend.eos_ids
        generation = Generation(task.max_tokens, task.sampling, eos_ids, task.alternatives, task.grammar)
        job = Job(task.prompt, task.max_tokens, self._backend.adapter, generation.work, _client(request))
        answer = AnswerWriter(shape, self._preparer.model, task, job, text)
        generated = steps(self._model_thread, job, text, task.stops, eos_ids)
        if task.stream:
            return EventStreamResponse(answer.events(generated))
        async with cancelled_when_gone(request.receive):
            return JSONResponse(await answer.whole(generated))


def _client(request: Request) -> str:
    return request.headers.get(CLIENT_HEADER, "")
