"""The HTTP application: OpenAI's routes, `/health`, and the agent's private `/v1/score` and `/v1/adapter`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgewright_agent.engine_worker.backend import Backend, InvalidRequestError
from edgewright_agent.engine_worker.bodies import (
    AdapterBody,
    ChatBody,
    CompletionBody,
    SamplingBody,
    ScoreBody,
    parse_body,
)
from edgewright_agent.engine_worker.connection import (
    ClientGoneError,
    EventStream,
    cancelled_when_gone,
    on_client_gone,
    on_failure,
    on_invalid_request,
    read_body,
)
from edgewright_agent.engine_worker.generation import Step, check_context, scores, steps
from edgewright_agent.engine_worker.shapes import CHAT, COMPLETION, Answer, Shape
from edgewright_agent.engine_worker.turns import Turns

WAITING_MAX = 16


def make_app(backend: Backend, model: str) -> Starlette:
    """The application that serves `backend` under the name `model`."""
    routes = Routes(backend, model)
    return Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/v1/models", routes.models),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat_completions, methods=["POST"]),
            Route("/v1/score", routes.score, methods=["POST"]),
            Route("/v1/adapter", routes.adapter, methods=["POST"]),
        ],
        exception_handlers={
            InvalidRequestError: on_invalid_request,
            ClientGoneError: on_client_gone,
            RuntimeError: on_failure,
            MemoryError: on_failure,
        },
    )


class Routes:
    """One method per route."""

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend = backend
        self._model = model
        self._names = {model}  # all it ever had: a request may have been sent just before a switch
        self._turns = Turns(WAITING_MAX)
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
        prompt = text.chat([{"role": message.role, "content": message.text} for message in body.messages])
        max_tokens = body.max_completion_tokens or body.max_tokens
        return await self._answer(request, CHAT, body, text.encode(prompt, special=False), max_tokens)

    async def score(self, request: Request) -> Response:
        """Log-likelihoods of continuations."""
        body = parse_body(ScoreBody, await read_body(request))
        self._turns.check_room()
        async with cancelled_when_gone(request.receive), self._turns.turn():
            result = await scores(self._backend, body.items)
        return JSONResponse({"items": [[asdict(score) for score in item] for item in result]})

    async def adapter(self, request: Request) -> Response:
        """Switches the LoRA adapter. Generations under way end with the one they began with."""
        body = parse_body(AdapterBody, await read_body(request))
        self._backend.use_adapter(None if body.file is None else Path(body.file))
        self._model = body.model
        self._names.add(body.model)
        return JSONResponse({"status": "ok"})

    async def _answer(
        self,
        request: Request,
        shape: Shape,
        body: SamplingBody,
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
        self._turns.check_room()
        answer = Answer(shape, self._model, body, len(prompt))
        generated = self._steps(prompt, max_tokens or context_tokens - len(prompt), body)
        if body.stream:
            return EventStream(answer.events(generated))
        async with cancelled_when_gone(request.receive):
            return JSONResponse(await answer.whole(generated))

    async def _steps(
        self, prompt: Sequence[int], max_tokens: int, body: SamplingBody
    ) -> AsyncGenerator[Step, None]:
        async with self._turns.turn(), aclosing(steps(self._backend, prompt, max_tokens, body)) as generated:
            async for step in generated:
                yield step
