"""The relay of an engine's stream: bytes pass as they are, and each token counts once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgewright_agent.engines import Reply
from edgewright_agent.openai_api.completions import parse_completion
from edgewright_agent.openai_api.http.relay import relay_model, relay_stream, relay_whole
from edgewright_agent.telemetry.serving import RequestWindow, ServingStats
from edgewright_agent.telemetry.types import EndedRequest

ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
DONE = b"data: [DONE]\n\n"


def chunk(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}


def wire(*events: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


class Relayed:
    """What a client was sent, and what was measured."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent = b""
        self.stats = ServingStats()
        self.ended: list[EndedRequest] = []

    async def run(self, *pieces: bytes, wants_usage: bool = False) -> None:
        """Pieces arrive a second apart."""
        window = RequestWindow(self.stats, lambda a, f, t: None, lambda: self.now, self.ended.append)

        async def arriving() -> AsyncGenerator[bytes, None]:
            for piece in pieces:
                self.now += 1.0
                yield piece

        async def send(message: dict[str, Any]) -> None:
            self.sent += message.get("body", b"")

        await relay_stream(Reply(200, {}, arriving()), window, send, wants_usage=wants_usage)


async def test_bytes_pass_as_they_are_however_they_were_cut() -> None:
    data = wire(ROLE, chunk("größe "), chunk("\n\n", "stop"), USAGE) + b": a comment\n\n" + DONE
    for size in (1, 7, len(data)):
        relayed = Relayed()
        await relayed.run(*(data[at : at + size] for at in range(0, len(data), size)), wants_usage=True)
        assert relayed.sent == data


async def test_the_counts_are_taken_out_for_a_client_that_did_not_ask() -> None:
    relayed = Relayed()
    await relayed.run(wire(ROLE, chunk("a"), chunk("b", "stop"), USAGE) + DONE)
    assert relayed.sent == wire(ROLE, chunk("a"), chunk("b", "stop")) + DONE


async def test_counts_beside_tokens_stay_where_they_are() -> None:
    """As vLLM sends them with `continuous_usage_stats`."""
    running = chunk("a") | {"usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}
    begun = ROLE | {"usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}}
    relayed = Relayed()
    await relayed.run(wire(begun, running, USAGE) + DONE)
    assert relayed.sent == wire(begun, running) + DONE


async def test_the_first_token_is_not_the_chunk_that_names_the_role() -> None:
    relayed = Relayed()
    await relayed.run(wire(ROLE), wire(chunk("a")), wire(chunk("", "stop")), wire(USAGE) + DONE)
    assert relayed.stats.serving().time_to_first_token_seconds.p50 == 2.0
    assert relayed.ended[0].finish_reason == "stop"


def test_a_token_is_never_timed_before_the_one_that_it_follows() -> None:
    relayed = Relayed()
    window = RequestWindow(relayed.stats, lambda a, f, t: None, lambda: 2.0, relayed.ended.append)
    for at_seconds in (None, 1.5, 3.0):
        window.token(at_seconds)
    assert window.end().time_per_output_token_seconds == pytest.approx(0.5)


async def test_tokens_that_come_in_one_chunk_arrive_together() -> None:
    relayed = Relayed()  # four tokens in two chunks
    await relayed.run(wire(chunk("a")), wire(chunk("b c d", "length")), wire(USAGE), DONE)
    serving = relayed.stats.serving()
    assert serving.generated_tokens == 4
    assert serving.inter_token_latency_seconds.count == 3
    assert serving.inter_token_latency_seconds.max == 1.0
    assert serving.inter_token_latency_seconds.mean == pytest.approx(1 / 3)
    assert serving.time_per_output_token_seconds.p50 == pytest.approx(1 / 3)


async def test_several_answers_in_one_stream_are_timed_within_each() -> None:
    """As vLLM sends the completions of two prompts: a second between an answer's token and the other's next one."""
    texts = [
        {"choices": [{"index": index, "text": text, "finish_reason": reason}]}
        for text, reason in (("a", None), ("b", "length"))
        for index in (0, 1)
    ]
    relayed = Relayed()
    await relayed.run(*map(wire, texts), wire(USAGE), DONE)
    serving = relayed.stats.serving()
    assert serving.generated_tokens == 4
    assert serving.inter_token_latency_seconds.count == 2
    assert serving.inter_token_latency_seconds.mean == 2.0
    assert serving.time_per_output_token_seconds.p50 == 2.0
    assert serving.time_to_first_token_seconds.p50 == 1.0


async def test_a_token_counts_from_when_the_engine_made_it_which_clients_do_not_see() -> None:
    relayed = Relayed()
    made = b": 0.250000\n" + wire(chunk("a")) + b": 0.750000\n" + wire(chunk("b", "stop"))
    await relayed.run(made + wire(USAGE) + DONE)
    assert relayed.sent == wire(chunk("a"), chunk("b", "stop")) + DONE
    serving = relayed.stats.serving()
    assert serving.time_to_first_token_seconds.p50 == 0.25
    assert serving.inter_token_latency_seconds.max == 0.5


async def test_an_error_in_the_stream_is_a_failed_request() -> None:
    relayed = Relayed()
    data = wire(chunk("a"), {"error": {"message": "it broke", "code": "engine_failed"}})
    await relayed.run(data)
    assert relayed.sent == data
    assert [each.finish_reason for each in relayed.ended] == ["error"]


async def test_an_engine_that_can_not_list_its_models_is_not_taken_for_one_without_the_model() -> None:
    sent: list[dict[str, Any]] = []

    async def refusal() -> AsyncGenerator[bytes, None]:
        yield b'{"error": {"message": "it is loading"}}'

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await relay_model(Reply(503, {"content-type": "application/json"}, refusal()), "tiny", send)
    assert sent[0]["status"] == 503
    assert b"it is loading" in sent[1]["body"]


@pytest.mark.parametrize(
    ("status", "kind", "data", "message"),
    [
        (500, "text/plain", b"Internal Server Error", "The engine answered 500: Internal Server Error."),
        (400, "application/json", b'{"detail": "there is no such field"}', "there is no such field"),
        (422, "application/json", b'{"detail": [{"msg": "wrong"}]}', "wrong"),
        (404, "application/json", b'{"object": "error", "message": "no such model"}', "no such model"),
        (400, "application/json", b'{"error": "too long"}', "too long"),
        (500, "application/json", b'{"error": {"message": null}}', "The engine answered 500"),
        (502, "text/html", b"<html>\xff" + b"x" * 10_000, "The engine answered 502: <html>"),
        (503, "text/plain", b"", "The engine answered 503: nothing more."),
        (500, "application/json", b"[" * 100_000, "The engine answered 500"),
    ],
)
async def test_an_engines_error_in_another_shape_becomes_openais(
    status: int, kind: str, data: bytes, message: str
) -> None:
    answer = await relayed_error(status, {"content-type": kind, "retry-after": "7"}, data)
    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.headers[b"retry-after"] == b"7"
    error = json.loads(answer.body)["error"]
    assert message in error["message"]
    assert len(error["message"]) < 600
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert error["code"]


async def test_an_engines_error_in_openais_shape_passes_byte_for_byte() -> None:
    data = b'{ "error": {"message": "no", "param": "top_k", "code": "mine"} }'
    assert (await relayed_error(400, {"content-type": "application/json"}, data)).body == data


@dataclass
class Sent:
    """What a client was sent."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        self.headers |= dict(message.get("headers", ()))
        self.body += message.get("body", b"")


async def relayed_error(status: int, headers: dict[str, str], data: bytes) -> Sent:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield data

    sent = Sent()
    await relay_whole(Reply(status, headers, pieces()), None, sent)
    return sent


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False, "other": 1}])
def test_a_stream_is_asked_for_with_counts(options: dict[str, Any] | None) -> None:
    asked = parse_completion(json.dumps({"prompt": "x", "stream": True, "stream_options": options}).encode())
    expected = {**(options or {}), "include_usage": True}
    assert json.loads(asked.body) == {"prompt": "x", "stream": True, "stream_options": expected}
    assert not asked.wants_usage


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x"},
        {"stream": False},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": "all"},  # wrong, and the engine's to refuse
    ],
)
def test_any_other_request_is_not_touched(body: dict[str, Any]) -> None:
    data = json.dumps(body, indent=1).encode()
    assert parse_completion(data).body == data
    assert parse_completion(data).wants_usage
