"""What one request may take of the worker is bounded: others are served, and no request brings the engine down."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from tokenizers import Regex, Tokenizer, pre_tokenizers

from edgewright.errors import InputError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engine_worker.requests.threads import PREPARE_SECONDS
from edgewright_agent.engines import GenerationRequest, ScoreItem, Token
from edgewright_agent.engines.served import ServedEngine
from tests.support.engine_releases import CONTEXT_TOKENS, Release, asked_release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
MESSAGES: Any = [{"role": "user", "content": "hi"}]
COMPLETION = {"prompt": "on the other hand", "max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module", params=["fake", "onnxruntime-genai"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return asked_release(request, tmp_path_factory, token_seconds=0.002)


async def is_served(http: httpx.AsyncClient) -> bool:
    return (await http.post("/v1/completions", json=COMPLETION)).status_code == 200


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert 400 <= response.status_code < 500, response.text[:300]
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 1000
    return error


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


FOUR_MIB = 4 * MIB
# Each has four million bytes, or makes a parser build as much as it can out of fewer.
NONSENSE = {
    "a text": body(prompt="x" * FOUR_MIB),
    "a text of emoji": body(prompt="😀" * (FOUR_MIB // 12)),
    "a text of blanks": body(prompt=" " * FOUR_MIB),
    "a message": body(messages=[{"role": "user", "content": "the cat " * (FOUR_MIB // 8)}]),
    "messages": b'{"messages":['
    + b'{"role":"user","content":""},' * 140_000
    + b'{"role":"user","content":""}]}',
    "wrong messages": b'{"messages":[' + b"{}," * 1_000_000 + b"{}]}",
    "parts": b'{"messages":[{"role":"user","content":['
    + b'{"type":"text","text":""},' * 160_000
    + b'{"type":"text","text":""}]}]}',
    "tokens": b'{"prompt":[' + b"1," * 2_000_000 + b"1]}",
    "empty lists": b'{"prompt":[' + b"[]," * 1_300_000 + b"[]]}",
    "nested lists": b'{"prompt":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
    "unknown fields": b"{" + b",".join(b'"f%d":0' % n for n in range(400_000)) + b"}",
    "a logit table": b'{"prompt":"x","logit_bias":{'
    + b",".join(b'"%d":1' % n for n in range(350_000))
    + b"}}",
    "stop strings": b'{"prompt":"x","stop":[' + b'"ab",' * 800_000 + b'"ab"]}',
    "a string without end": b'{"prompt":"' + b'\\"' * 2_000_000,
    "no JSON": b"\x00" * FOUR_MIB,
    "spaces": b" " * FOUR_MIB,
    "a long name": body(**{"x" * FOUR_MIB: 1}),
    "a long number": b'{"prompt":"x","seed":' + b"9" * FOUR_MIB + b"}",
    "a long model": body(prompt="x", model="m" * FOUR_MIB),
    "an enumeration": body(
        messages=MESSAGES,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "e", "schema": {"enum": [f"value {n}" for n in range(100_000)]}},
        },
    ),
    "template variables": body(messages=MESSAGES, chat_template_kwargs={"x": ["y"] * 500_000}),
}


@pytest.mark.parametrize("name", sorted(NONSENSE))
async def test_four_megabytes_of_nonsense_are_refused_and_cost_the_worker_at_most_16_mib(
    http: httpx.AsyncClient, engine: ServedEngine, name: str
) -> None:
    assert await is_served(http)
    before = psutil.Process(engine.pid).memory_info().rss
    Path(f"/proc/{engine.pid}/clear_refs").write_text("5", encoding="ascii")  # the peak counts from now on
    route = "/v1/chat/completions" if b'"messages"' in NONSENSE[name][:20] else "/v1/completions"
    error_of(await http.post(route, content=NONSENSE[name]))
    status = Path(f"/proc/{engine.pid}/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    assert peak - before <= 16 * MIB
    assert await is_served(http)


async def test_the_threads_that_talk_leave_the_processor_to_those_that_compute(
    http: httpx.AsyncClient, engine: ServedEngine
) -> None:
    assert await is_served(http)
    threads = [int(folder.name) for folder in Path(f"/proc/{engine.pid}/task").iterdir()]
    assert os.sched_getscheduler(engine.pid) == os.SCHED_BATCH  # the event loop's
    assert any(os.sched_getscheduler(thread) == os.SCHED_OTHER for thread in threads)  # the model's


@pytest.mark.parametrize("count", [30_000, 200_000, 1_500_000])
async def test_a_prompt_that_cannot_fit_is_refused_with_the_numbers(engine: ServedEngine, count: int) -> None:
    for text in ("x" * count, "the cat " * (count // 8)):
        for request in (
            GenerationRequest(prompt=text, max_tokens=2),
            GenerationRequest(messages=[{"role": "user", "content": text}], max_tokens=2),
        ):
            with pytest.raises(InputError, match=r"\d+ (bytes|tokens).* (at most|holds) \d+") as caught:
                await collect(engine, request)
            assert caught.value.reason in (Reason.REASON_CONTEXT_EXCEEDED, Reason.REASON_INVALID_ARGUMENT)
        with pytest.raises(InputError):
            await engine.score([ScoreItem(text, ["x"])])
    assert (await collect(engine, GenerationRequest(prompt="x", max_tokens=1)))[2].generated_tokens == 1


async def test_a_neighbour_gets_its_tokens_while_nonsense_is_refused(
    http: httpx.AsyncClient, engine: ServedEngine
) -> None:
    """Every piece of nonsense is answered before a neighbour's long text ends, and the text is what it is alone."""
    request = GenerationRequest(prompt="the", max_tokens=CONTEXT_TOKENS - 20, ignore_eos=True)
    alone = await collect(engine, request)
    stream = engine.generate(request)
    tokens = [await anext(stream)]
    for name in ("a text", "wrong messages", "tokens", "unknown fields"):
        error_of(await http.post("/v1/completions", content=NONSENSE[name]))
    tokens += [item async for item in stream]
    assert [item.id for item in tokens if isinstance(item, Token)] == alone[1]


async def test_many_large_bodies_at_once_are_refused_and_no_more_are_held(
    http: httpx.AsyncClient, engine: ServedEngine
) -> None:
    content = body(prompt="x" * 200_000)
    answers = await asyncio.gather(*(http.post("/v1/completions", content=content) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {400, 413, 429}
    assert all(answer.json()["error"]["message"] for answer in answers)
    assert await is_served(http)


SCHEMAS: dict[str, Any] = {
    "of itself": {"$ref": "#"},
    "of each other": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "of itself in all of": {"allOf": [{"$ref": "#"}]},
    "that nothing satisfies": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "of many alternatives": {
        "allOf": [{"anyOf": [{"properties": {f"a{i}": {"const": j}}} for j in range(6)]} for i in range(8)]
    },
    "with an enumeration": {"enum": [f"value {n}" for n in range(100_000)]},
    "with a long value": {"enum": ["x" * 200_000]},
    "with optional properties": {
        "type": "object",
        "properties": {f"p{n}": {"type": "string"} for n in range(2500)},
        "additionalProperties": False,
    },
    "with expressions that explode": {
        "anyOf": [{"type": "string", "pattern": f"^.*{c}.{{{30 + n}}}$"} for n, c in enumerate("abcdefgh")]
    },
    "with a million items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**6},
    "doubling": {
        "$ref": "#/$defs/d20",
        "$defs": {
            "d0": {"type": "null"},
            **{
                f"d{n}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{n - 1}"}] * 2, "minItems": 2}
                for n in range(1, 21)
            },
        },
    },
}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_explodes_or_refers_to_itself_is_answered_in_a_sentence_or_followed(
    http: httpx.AsyncClient, engine: ServedEngine, name: str, stream: bool
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": SCHEMAS[name]}}
    asked = {"messages": MESSAGES, "max_tokens": 24, "seed": 1, "response_format": form, "stream": stream}
    response = await http.post("/v1/chat/completions", json=asked)
    if response.status_code != 200:
        error_of(response)
    elif stream and '"error"' in response.text:
        error = json.loads(response.text.rsplit("data: ", 1)[-1])["error"]
        assert error["type"] == "invalid_request_error"
    assert await is_served(http)


@pytest.mark.parametrize(
    "name", ["of itself", "of each other", "with an enumeration", "that nothing satisfies"]
)
async def test_a_schema_that_cannot_be_followed_is_refused_before_the_model_runs(
    http: httpx.AsyncClient, name: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": SCHEMAS[name]}}
    asked = {"messages": MESSAGES, "max_tokens": 4, "response_format": form}
    message = error_of(await http.post("/v1/chat/completions", json=asked))["message"]
    assert message.startswith(("response_format: this JSON schema can't be followed", "The body"))


def with_template(release: Release, folder: Path, template: str) -> Release:
    """The tiny model with another chat template."""
    shutil.copytree(release.tree, folder / "tree")
    (folder / "tree/tokenizer/chat_template.jinja").write_text(template, encoding="utf-8")
    return Release(release.kind, folder / "tree", folder / "run")


@pytest_asyncio.fixture(loop_scope="module")
async def looping(tiny_onnx: Release, tmp_path: Path) -> AsyncIterator[ServedEngine]:
    template = (
        "{% if messages[0].content == 'loop' %}{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}"
        "{% endfor %}{% endif %}{{ messages[0].content }}"
    )
    async with with_template(tiny_onnx, tmp_path, template).running() as engine:
        assert isinstance(engine, ServedEngine)
        yield engine


async def test_a_template_that_loops_is_ended_and_the_engine_serves_others_meanwhile(
    looping: ServedEngine,
) -> None:
    async def ask(text: str) -> str:
        request = GenerationRequest(messages=[{"role": "user", "content": text}], max_tokens=3)
        return (await collect(looping, request))[0]

    bad = [asyncio.create_task(ask("loop")) for _ in range(2)]
    await asyncio.sleep(0.5)
    await ask("hello")
    await looping.heartbeat()
    assert not any(task.done() for task in bad)
    for task in bad:
        with pytest.raises(InputError, match=f"more than {PREPARE_SECONDS:g} s to prepare .*chat template"):
            await task
    assert await looping.healthy()


async def test_a_tokenizer_s_regular_expression_that_runs_away_is_an_error_in_openai_s_form(
    tiny_onnx: Release, tmp_path: Path
) -> None:
    shutil.copytree(tiny_onnx.tree, tmp_path / "tree")
    file = str(tmp_path / "tree/tokenizer/tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    split = pre_tokenizers.Split(Regex("(a|aa)+$"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.save(file)
    async with Release(tiny_onnx.kind, tmp_path / "tree", tmp_path / "run").running() as engine:
        assert isinstance(engine, ServedEngine)
        transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=120) as http:
            for route, fields in (
                ("/v1/completions", {"prompt": "a" * 60 + "b"}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 60 + "b"}]}),
            ):
                response = await http.post(route, json={**fields, "max_tokens": 2})
                assert response.headers["content-type"] == "application/json"
                assert "tokenizer can't read this text" in error_of(response)["message"]
            assert await is_served(http)
