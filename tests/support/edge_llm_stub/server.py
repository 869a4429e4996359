"""The server: `tensorrt-edgellm-serve` of the wheel 0.11.0, on letters.

Routes, statuses and errors are those of `experimental/server/api`, flags those of its `config.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.edge_llm_stub.build import BuildOptions, behaviour, prepare_model
from tests.support.edge_llm_stub.letters import LETTERS, InputTooLongError, Step, write
from tests.support.edge_llm_stub.protocol import ChatCompletionRequest

TOKEN_SECONDS = 0.0005


def parser() -> argparse.ArgumentParser:
    """The flags that the agent gives, with the wheel's names and defaults."""
    options = argparse.ArgumentParser(prog="tensorrt-edgellm-serve", allow_abbrev=False)
    options.add_argument("model")
    options.add_argument("--host", default="0.0.0.0")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--served-model-name", default="")
    options.add_argument("--api-key", default="")
    options.add_argument("--reasoning-parser", default="auto")
    options.add_argument("--max-queued-requests", type=int, default=16)
    options.add_argument("--queue-timeout", type=float, default=600.0)
    options.add_argument("--log-level", default="info")
    options.add_argument("--cache-dir", default="")
    options.add_argument("--max-input-len", type=int, default=4096)
    options.add_argument("--max-batch-size", type=int, default=1)
    options.add_argument("--max-kv-cache-capacity", type=int, default=8192)
    options.add_argument("--enable-in-flight-batching", action="store_true")
    return options


def main() -> None:
    """Serves until it is told to end."""
    options = parser().parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-8s %(name)s: %(message)s")
    sizes = BuildOptions(options.max_input_len, options.max_kv_cache_capacity, options.max_batch_size)
    bundle = prepare_model(options.model, options.cache_dir, sizes)
    logging.getLogger("edgellm.server").info("Using cached engine bundle: %s", bundle)
    if line := behaviour(Path(options.model)).get("ends"):
        raise SystemExit(line)
    app = _Server(options).app()
    uvicorn.run(app, host=options.host, port=options.port, log_level=options.log_level)


class _Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        at_once = options.max_batch_size if options.enable_in_flight_batching else 1
        self._places = at_once + options.max_queued_requests
        self._seats = asyncio.Semaphore(at_once)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "model": self._options.served_model_name})

    async def _models(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        card = {"id": self._options.served_model_name, "object": "model", "owned_by": "tensorrt-edgellm"}
        return JSONResponse({"object": "list", "data": [card]})

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {self._options.api_key}":
            return None
        return _error("invalid API key", 401, "authentication_error")

    async def _chat(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            chat = ChatCompletionRequest.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors()[0]
            return _error(str(first["msg"]), 400, "invalid_request_error", ".".join(map(str, first["loc"])))
        if chat.model and chat.model != self._options.served_model_name:
            message = f"model {chat.model!r} is not served by this process"
            return _error(message, 404, "not_found_error", "model")
        if not self._places:
            return _error("server request queue is full", 429, "server_overloaded")
        self._places -= 1
        if chat.stream:
            return StreamingResponse(self._stream(chat), media_type="text/event-stream")
        return await self._whole(chat)

    async def _whole(self, chat: ChatCompletionRequest) -> Response:
        try:
            async with contextlib.aclosing(self._steps(chat)) as steps:
                written = [step async for step in steps]
        except InputTooLongError as error:
            return _error(str(error), 413, "invalid_request_error")
        (prompt, _), *tokens = written
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(step.text for _, step in tokens if step)},
            "logprobs": _logprobs(chat, [step for _, step in tokens if step]),
            "finish_reason": tokens[-1][1].finish if tokens[-1][1] else None,
        }
        body = {**self._head("chat.completion"), "choices": [choice], "usage": _usage(prompt, len(tokens))}
        return JSONResponse({name: value for name, value in body.items() if value is not None})

    async def _stream(self, chat: ChatCompletionRequest) -> AsyncIterator[str]:
        head, count, prompt, finish = self._head("chat.completion.chunk"), 0, 0, "stop"

        def chunk(delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> str:
            whole = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **delta}
            choice = {"index": 0, "delta": whole, "logprobs": logprobs, "finish_reason": finish}
            return f"data: {json.dumps({**head, 'choices': [choice], 'usage': None})}\n\n"

        yield chunk({"role": "assistant"})
        try:
            async with contextlib.aclosing(self._steps(chat)) as steps:
                async for tokens, step in steps:
                    if step is None:
                        prompt = tokens
                        continue
                    count, finish = count + 1, step.finish or "stop"
                    delta = {"content": step.text} if step.text else {}
                    if delta or chat.logprobs:
                        yield chunk(delta, _logprobs(chat, [step]))
        except InputTooLongError as error:
            payload = {"message": str(error), "type": "invalid_request_error", "param": None, "code": 413}
            yield f"data: {json.dumps({'error': payload})}\n\ndata: [DONE]\n\n"
            return
        yield chunk({}, finish=finish)
        if chat.stream_options is not None and chat.stream_options.include_usage:
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(prompt, count)})}\n\n"
        yield "data: [DONE]\n\n"

    async def _steps(self, chat: ChatCompletionRequest) -> AsyncGenerator[tuple[int, Step | None], None]:
        """Yields the prompt's length, then it with each step, in a seat of the batch; gives the place back."""
        try:
            async with self._seats:
                sizes = self._options
                prompt, steps = write(chat, sizes.max_input_len, sizes.max_kv_cache_capacity)
                yield prompt, None
                for step in steps:
                    await asyncio.sleep(TOKEN_SECONDS)
                    yield prompt, step
        finally:
            self._places += 1

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self._options.served_model_name,
        }


def _logprobs(chat: ChatCompletionRequest, steps: list[Step]) -> dict[str, Any] | None:
    """The wheel's `_format_logprob_steps`: a token that is not among the alternatives has no log-probability."""
    if not chat.logprobs:
        return None
    content = []
    for step in steps:
        others = [letter for letter in LETTERS if letter != step.token]
        likely = [(step.token, step.logprob), *((letter, -5.0) for letter in others)]
        top = [_entry(token, logprob) for token, logprob in likely[: max(1, chat.top_logprobs or 0)]]
        content.append(top[0] | {"top_logprobs": top if chat.top_logprobs is not None else []})
    return {"content": content}


def _entry(token: int, logprob: float) -> dict[str, Any]:
    return {"token": chr(token), "token_id": token, "bytes": [token], "logprob": logprob}


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _error(message: str, status: int, kind: str, param: str | None = None) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": error}, status_code=status)
