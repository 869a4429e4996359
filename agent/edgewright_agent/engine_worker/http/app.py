"""The HTTP application: OpenAI's routes, `/health`, and the agent's private ones.

Those are `/v1/score`, `/v1/adapter`, `/v1/together` and `/v1/heartbeat`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgewright_agent.engine_worker.backend import Backend, InvalidRequestError
from edgewright_agent.engine_worker.batching.generation import check_context, scores, steps
from edgewright_agent.engine_worker.batching.jobs import Generation, Job
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.http.answers import CHAT, COMPLETION, Answer, Shape
from edgewright_agent.engine_worker.http.bodies import (
    AdapterBody,
    ChatBody,
    CompletionBody,
    ResponseFormat,
    ScoreBody,
    parse_body,
)
from edgewright_agent.engine_worker.http.connection import (
    ClientDisconnectedError,
    EventStreamResponse,
    cancelled_when_gone,
    on_client_gone,
    on_failure,
    on_invalid_request,
    read_body,
)
from edgewright_agent.engine_worker.model.grammar import Grammar, GrammarMaker


@dataclass(frozen=True)
class ServingSettings:
    """What the application is told when it starts."""

    model: str  # its name in the API
    sequences_max: int  # that share the KV cache at the same time
    spare_bytes: int | None = None  # memory beyond the predicted peak; None: no limit


def make_app(backend: Backend, settings: ServingSettings) -> Starlette:
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

    def __init__(self, backend: Backend, settings: ServingSettings) -> None:
        self._backend = backend
        self._model = settings.model
        self._names = {settings.model}  # all it ever had: a request may have been sent just before a switch
        self._model_thread = ModelThread(backend, settings.sequences_max)
        self._grammars = GrammarMaker(backend.text, backend.vocab_size, backend.eos_ids, settings.spare_bytes)
        self._created = int(time.time())

    async def health(self, _: Request) -> Response:
        """The socket is opened once the model is loaded, so that an answer means ready."""
        return JSONResponse({"status": "ok"})

    async def models(self, _: Request) -> Response:
        """The one model."""
        model = {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "edgewright",
            "max_model_len": self._backend.context_tokens,
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def completions(self, request: Request) -> Response:
        """What follows a text."""
        body = parse_body(CompletionBody, await read_body(request))
        prompt = body.prompt
        tokens = self._backend.text.encode(prompt, special=True) if isinstance(prompt, str) else prompt
        return await self._answer(request, COMPLETION, body, tokens, body.max_tokens)

    async def chat_completions(self, request: Request) -> Response:
        """The assistant's next turn."""
        body = parse_body(ChatBody, await read_body(request))
        text = self._backend.text
        messages = [{"role": each.template_role, "content": each.text} for each in body.messages]
        prompt = text.chat(messages)
        max_tokens = body.max_completion_tokens or body.max_tokens
        return await self._answer(request, CHAT, body, text.encode(prompt, special=False), max_tokens)

    async def score(self, request: Request) -> Response:
        """Answers with the log-likelihoods of continuations."""
        body = parse_body(ScoreBody, await read_body(request))
        self._model_thread.check_room()
        async with cancelled_when_gone(request.receive):
            result = await scores(self._model_thread, self._backend, body.items)
        return JSONResponse({"items": [[asdict(score) for score in item] for item in result]})

    async def adapter(self, request: Request) -> Response:
        """Switches the LoRA adapter. Generations under way end with the one they began with."""
        body = parse_body(AdapterBody, await read_body(request))
        self._backend.use_adapter(None if body.file is None else Path(body.file))
        self._model = body.model
        self._names.add(body.model)
        return JSONResponse({"status": "ok"})

    async def together(self, request: Request) -> Response:
        """How many requests of so many tokens, prompt and answer, share the model's steps; more wait for their end."""
        return JSONResponse({"requests": self._model_thread.together(request.path_params["tokens"])})

    async def heartbeat(self, _: Request) -> Response:
        """Answers once the model has computed something for whoever asks, or for a request that it serves."""
        await self._model_thread.heartbeat()
        return JSONResponse({"status": "ok"})

    async def _answer(
        self,
        request: Request,
        shape: Shape,
        body: CompletionBody | ChatBody,
        prompt: Sequence[int],
        max_tokens: int | None,
    ) -> Response:
        if body.model is not None and body.model not in self._names:
            message = f"There is no model {body.model!r} here; {self._model!r} is served."
            raise InvalidRequestError(message, "model_not_found", 404)
        if not prompt or not all(0 <= token < self._backend.vocab_size for token in prompt):
            raise InvalidRequestError(
                f"The prompt must have tokens, each from 0 to {self._backend.vocab_size - 1}."
            )
        context_tokens = self._backend.context_tokens
        check_context(len(prompt), max_tokens or 1, context_tokens)
        self._model_thread.check_room()
        job = await self._job(body, prompt, max_tokens or context_tokens - len(prompt))
        answer = Answer(shape, self._model, body, job, self._backend.text)
        eos_ids = frozenset() if body.ignore_eos else self._backend.eos_ids
        generated = steps(self._model_thread, job, self._backend.text, body.stop, eos_ids)
        if body.stream:
            return EventStreamResponse(answer.events(generated))
        async with cancelled_when_gone(request.receive):
            return JSONResponse(await answer.whole(generated))

    async def _job(self, body: CompletionBody | ChatBody, prompt: Sequence[int], max_tokens: int) -> Job:
        generation = Generation(
            max_tokens,
            body.sampling,
            frozenset() if body.ignore_eos else self._backend.eos_ids,
            body.alternatives,
            await self._grammar(body.response_format),
        )
        return Job(prompt, max_tokens, self._backend.adapter, generation.work)

    async def _grammar(self, form: ResponseFormat | None) -> Grammar | None:
        """Made in a thread: a large schema may take a second."""
        if form is None or form.schema_to_follow is None:
            return None
        return await asyncio.to_thread(self._grammars.make, form.schema_to_follow)
