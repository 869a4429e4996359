"""What every engine promises, tried on each of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from edgewright.errors import BusyError, InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    DeathCause,
    Engine,
    GenerationRequest,
    ScoreItem,
    Token,
)
from edgewright_agent.engines.protocol.requests import UNTOLD_ID
from edgewright_agent.engines.served import ServedEngine
from tests.support.engine_releases import CONTEXT_TOKENS, Release, asked_release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "on the other hand"
LONG = GenerationRequest(prompt=PROMPT, max_tokens=CONTEXT_TOKENS - 20, ignore_eos=True)
ONE_TOKEN = GenerationRequest(prompt=PROMPT, max_tokens=1)
TRIES = 3


# vLLM words its errors in its own way, and bounds no body: the agent's OpenAI-compatible server does.
of_our_worker = pytest.mark.parametrize("release", ["fake", "onnxruntime-genai"], indirect=True)


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        "onnxruntime-genai",
        "llama.cpp",
        "tensorrt-edge-llm",
        pytest.param("vllm", marks=pytest.mark.vllm),
    ],
)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return asked_release(request, tmp_path_factory, token_seconds=0.0005)


EDGE_LLM = "tensorrt-edge-llm"  # whose stand-in writes letters


@pytest.fixture
def scores(release: Release) -> None:
    """Skips where the engine scores nothing; that it says so is tried beside it."""
    if release.kind == EDGE_LLM:
        pytest.skip("It gives no log-probabilities of a text that it did not write.")


def sampled(**changes: Any) -> GenerationRequest:
    return GenerationRequest(
        **{"prompt": PROMPT, "max_tokens": 40, "temperature": 1.0, "seed": 7, "ignore_eos": True, **changes}
    )


async def test_an_exact_request_brings_the_same_tokens(engine: Engine) -> None:
    text, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=20))
    assert UNTOLD_ID not in tokens
    request = GenerationRequest(prompt=PROMPT, max_tokens=20, exact=True)
    assert await collect(engine, request) == (text, tokens, finish)


async def test_each_token_is_an_item_and_a_finish_with_counts_is_the_last(engine: Engine) -> None:
    _, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=9, ignore_eos=True))
    assert len(tokens) == 9
    assert finish.reason == "length"
    assert finish.generated_tokens == 9
    assert finish.prompt_tokens > 0


async def test_the_streamed_text_is_the_text_without_streaming(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    text, tokens, finish = await collect(engine, sampled())
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 1, "seed": 7}
    extensions = {"ignore_eos": True, "return_token_ids": True}
    answer = (await http.post("/v1/completions", json=body | extensions)).json()
    assert answer["choices"][0]["text"] == text
    ids = answer["choices"][0]["token_ids"]
    # llama.cpp's stream says nothing of a token that ends inside a character, which the whole answer names.
    assert [exact if told != UNTOLD_ID else told for exact, told in zip(ids, tokens, strict=True)] == tokens
    usage = {name: count for name, count in answer["usage"].items() if count is not None}
    cached = usage.pop("prompt_tokens_details", None)
    assert usage == {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": 40,
        "total_tokens": finish.prompt_tokens + 40,
    }
    if release.kind not in (
        "vllm",
        EDGE_LLM,
    ):  # vLLM reuses whole blocks of 128 tokens; neither says anything
        read_again = 1 if release.kind == "llama.cpp" else 2
        assert cached == {"cached_tokens": finish.prompt_tokens - read_again}


async def test_greedy_generation_repeats(engine: Engine) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=20, ignore_eos=True)
    assert await collect(engine, request) == await collect(engine, request)


async def test_a_seed_repeats_its_text_and_another_seed_does_not(engine: Engine) -> None:
    first, again, other = [await collect(engine, sampled(seed=seed)) for seed in (7, 7, 2**63 + 8)]
    assert first == again
    assert first[1] != other[1]


async def test_without_a_seed_texts_differ(engine: Engine) -> None:
    first, second = [await collect(engine, sampled(seed=None)) for _ in range(2)]
    assert first[1] != second[1]


async def test_without_max_tokens_the_context_is_filled(engine: Engine) -> None:
    _, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=0, ignore_eos=True))
    assert len(tokens) + finish.prompt_tokens == CONTEXT_TOKENS
    assert finish.reason == "length"


@pytest.mark.parametrize(("start", "length"), [(0, 1), (5, 3), (11, 8)])
async def test_a_stop_string_ends_the_text_before_it(engine: Engine, start: int, length: int) -> None:
    whole, _, _ = await collect(engine, sampled())
    # llama.cpp looks for it in the bytes, which for the tiny model are often no text.
    clean = [at for at in range(len(whole) - length) if "\ufffd" not in whole[at : at + length]]
    start = min(clean, key=lambda at: abs(at - start))
    stop = whole[start : start + length]
    text, tokens, finish = await collect(engine, sampled(stop=["\0never", stop]))
    assert text == whole.partition(stop)[0]
    assert finish.reason == "stop"
    assert finish.generated_tokens == len(tokens) < 40


async def test_text_held_back_for_a_stop_string_comes_in_the_end(engine: Engine) -> None:
    whole, _, _ = await collect(engine, sampled())
    text, _, finish = await collect(engine, sampled(stop=[whole[-5:] + "\0never"]))
    assert (text, finish.reason) == (whole, "length")


async def test_the_end_of_sequence_token_ends_the_text(engine: Engine, release: Release) -> None:
    eos = 256 if release.kind == "fake" else 2
    request = GenerationRequest(prompt=PROMPT, max_tokens=200, temperature=1.0, seed=3)
    _, on, _ = await collect(engine, GenerationRequest(**{**vars(request), "ignore_eos": True}))
    _, tokens, finish = await collect(engine, request)
    assert finish.reason == "stop"
    if release.kind in (
        "llama.cpp",
        EDGE_LLM,
    ):  # they go on by never choosing an end, so that the texts differ
        assert tokens[-1] == eos
        assert len(on) == 200
    else:
        assert tokens == on[: on.index(eos) + 1]


async def test_messages_go_through_the_chat_template(engine: Engine) -> None:
    messages = [{"role": "user", "content": "hi"}]
    text, _, finish = await collect(engine, GenerationRequest(messages=messages, max_tokens=16))
    plain, _, plain_finish = await collect(engine, GenerationRequest(prompt="hi", max_tokens=16))
    assert finish.prompt_tokens > plain_finish.prompt_tokens
    assert text != plain


async def best_of(tries: int, measure: Callable[[], Awaitable[float]]) -> float:
    """Returns the least of a few measurements: a busy machine only adds."""
    return min([await measure() for _ in range(tries)])


async def test_cancelling_frees_the_engine_at_once(engine: Engine) -> None:
    async def seconds_until_another_is_served() -> float:
        stream = engine.generate(LONG)
        assert isinstance(await anext(stream), Token)
        cancelled = time.perf_counter()
        await stream.aclose()
        await collect(engine, ONE_TOKEN)
        return time.perf_counter() - cancelled

    full = time.perf_counter()
    await collect(engine, LONG)
    full = time.perf_counter() - full
    assert await best_of(TRIES, seconds_until_another_is_served) < full / 2


async def test_closing_the_connection_of_a_request_without_streaming_frees_the_engine(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    if release.kind == "llama.cpp":
        pytest.skip("It looks once a second whether the client is still there, and has answered by then.")
    if release.kind == EDGE_LLM:
        pytest.skip("Its server answers such a request to its end, whether or not the client is still there.")
    body = {"prompt": PROMPT, "max_tokens": LONG.max_tokens, "temperature": 0, "ignore_eos": True}
    begin = time.perf_counter()
    await http.post("/v1/completions", json=body)
    full = time.perf_counter() - begin

    async def seconds_until_another_is_served() -> float:
        posting = asyncio.create_task(http.post("/v1/completions", json=body))
        await asyncio.sleep(full / 5)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        begin = time.perf_counter()
        await collect(engine, ONE_TOKEN)
        return time.perf_counter() - begin

    assert await best_of(TRIES, seconds_until_another_is_served) < full / 2


async def test_cancelling_a_waiting_request_leaves_the_queue(engine: Engine) -> None:
    stream = engine.generate(LONG)
    await anext(stream)
    waiting = asyncio.create_task(collect(engine, LONG))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert (await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=2)))[2].generated_tokens <= 2


async def test_eight_requests_at_once_are_answered_as_one_by_one(engine: Engine) -> None:
    requests = [
        GenerationRequest(prompt=f"{PROMPT} {number}", max_tokens=10 + number, ignore_eos=True)
        for number in range(8)
    ]
    alone = [await collect(engine, request) for request in requests]
    assert await asyncio.gather(*(collect(engine, request) for request in requests)) == alone


async def test_requests_are_served_in_the_order_they_came(engine: Engine) -> None:
    """Each needs more than half of the memory, so that they take turns."""
    order: list[int] = []
    large = GenerationRequest(prompt=PROMPT, max_tokens=CONTEXT_TOKENS // 2, ignore_eos=True)

    async def request(number: int) -> None:
        await collect(engine, large)
        order.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(request(number)))
        await asyncio.sleep(0.2)  # the engine has read it by then
    await asyncio.gather(*tasks)
    assert order == list(range(4))


async def test_a_full_queue_is_a_busy_error_and_no_request_is_lost(engine: Engine) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=60, ignore_eos=True)
    results = await asyncio.gather(*(collect(engine, request) for _ in range(30)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusyError)]
    served = [result for result in results if isinstance(result, tuple)]
    assert len(refused) + len(served) == 30
    assert len(served) >= 17
    assert refused
    assert {error.reason for error in refused} == {Reason.REASON_OVERLOADED}


async def test_the_engine_answers_while_it_generates(engine: Engine) -> None:
    stream = engine.generate(LONG)
    await anext(stream)
    assert await engine.healthy()
    assert isinstance(await anext(stream), Token)
    await stream.aclose()


async def test_log_probabilities_of_a_text_are_its_score(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    if release.kind == "vllm":
        pytest.skip("Its own log-probabilities are tried beside its scores.")
    body = {"prompt": "the", "max_tokens": 1, "temperature": 0, "logprobs": 2}
    choice = (await http.post("/v1/completions", json=body)).json()["choices"][0]
    told = choice["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == 1
    assert len(told["top_logprobs"][0]) == 2
    if release.kind == EDGE_LLM:
        return  # it scores nothing
    ((score,),) = await engine.score([ScoreItem("the", [choice["text"]])])
    assert score.log_likelihood == pytest.approx(told["token_logprobs"][0], abs=1e-4)


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_follows_the_json_schema_it_is_asked_for(
    client: openai.AsyncOpenAI, release: Release, streaming: bool
) -> None:
    if release.kind in ("fake", EDGE_LLM):
        pytest.skip("It writes what its script says, or letters.")
    schema = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "switch", "schema": schema, "strict": True}}
    messages: Any = [{"role": "user", "content": "hi"}]
    request: Any = {"model": (await client.models.list()).data[0].id, "messages": messages, "max_tokens": 60}
    options: Any = {"temperature": 0, "response_format": form}
    if streaming:
        stream: Any = await client.chat.completions.create(**request, **options, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    else:
        answer: Any = await client.chat.completions.create(**request, **options)
        text = answer.choices[0].message.content
    assert json.loads(text) in ({"on": True}, {"on": False})


@pytest.mark.usefixtures("scores")
async def test_a_score_is_the_sum_over_its_parts(engine: Engine) -> None:
    items = [
        ScoreItem("the cat", [" the mat", " the"]),
        ScoreItem("the cat the", [" mat"]),
    ]
    (whole, first), (second,) = await engine.score(items)
    assert whole.tokens == first.tokens + second.tokens
    assert whole.log_likelihood == pytest.approx(first.log_likelihood + second.log_likelihood, abs=1e-4)
    assert whole.log_likelihood < first.log_likelihood < 0


@pytest.mark.usefixtures("scores")
async def test_blanks_at_the_context_s_end_belong_to_the_continuation(engine: Engine) -> None:
    (left,), (right,) = await engine.score([ScoreItem("the cat ", ["the"]), ScoreItem("the cat", [" the"])])
    assert left == right


@pytest.mark.usefixtures("scores")
async def test_scores_do_not_depend_on_what_is_scored_beside(engine: Engine) -> None:
    continuations = [" a", " the mat", " a", " on and on and on", "!"]
    together = (await engine.score([ScoreItem("the cat", continuations)]))[0]
    alone = [(await engine.score([ScoreItem("the cat", [text])]))[0][0] for text in continuations]
    assert together == alone


@pytest.mark.usefixtures("scores")
async def test_what_greedy_generation_writes_is_scored_as_greedy(engine: Engine) -> None:
    text, _, _ = await collect(engine, GenerationRequest(prompt="the", max_tokens=1))
    ((greedy, other),) = await engine.score([ScoreItem("the", [text, "\x01"])])
    assert greedy.is_greedy
    assert not other.is_greedy


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": -1},
        {"stop": [""]},
        {"stop": ["x"] * 9},
        {"prompt": ""},
        {"prompt": None},
        {"prompt": None, "messages": []},
        {"prompt": None, "messages": [{"role": "wizard", "content": "hi"}]},
    ],
)
async def test_a_wrong_request_is_an_input_error_and_the_next_is_served(
    engine: Engine, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        await collect(engine, sampled(**wrong))
    assert (await collect(engine, sampled(max_tokens=1)))[2].generated_tokens == 1


async def test_a_prompt_beyond_the_context_names_both_numbers(engine: Engine, release: Release) -> None:
    with pytest.raises(InputError, match=rf"300.*{CONTEXT_TOKENS}") as caught:
        await collect(engine, GenerationRequest(prompt="!" * 300))
    assert caught.value.reason == Reason.REASON_CONTEXT_EXCEEDED
    if release.kind == EDGE_LLM:
        return  # it scores nothing
    with pytest.raises(InputError) as caught:
        await engine.score([ScoreItem("!" * 200, ["!" * 100])])
    assert caught.value.reason == Reason.REASON_CONTEXT_EXCEEDED


@of_our_worker
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "x", "temperature": "hot"}', 400),
        (b'{"prompt": "x", "temperature": NaN}', 400),
        (b'{"prompt": "x", "n": 2}', 400),
        (b'{"prompt": "x", "logprobs": 6}', 400),
        (b'{"prompt": [1, 2, 99999]}', 400),
        (b'{"prompt": "x", "model": "another"}', 404),
        (b'{"prompt": "' + b"x" * (9 << 20) + b'"}', 413),
    ],
)
async def test_a_malformed_body_is_refused_in_openai_s_form(
    http: httpx.AsyncClient, body: bytes, status: int
) -> None:
    response = await http.post("/v1/completions", content=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@of_our_worker
async def test_a_giant_body_of_unknown_length_is_bounded(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * (1 << 16)

    response = await http.post("/v1/completions", content=pieces())
    assert response.status_code == 413


async def test_the_openai_package_works_against_it(client: openai.AsyncOpenAI, release: Release) -> None:
    model = (await client.models.list()).data[0].id
    whole = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=12, seed=1, temperature=0.8
    )
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=12,
        seed=1,
        temperature=0.8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    if release.kind not in ("vllm", EDGE_LLM):
        assert usage.prompt_tokens_details is not None
        read_again = 1 if release.kind == "llama.cpp" else 2  # the others were read for the first answer
        assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - read_again
    completion = await client.completions.create(
        model=model, prompt=PROMPT, max_tokens=3, stop="\0", top_p=0.9
    )
    assert completion.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="top_p"):
        await client.completions.create(model=model, prompt=PROMPT, top_p=2)
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="another", prompt=PROMPT)


async def test_memory_is_measured_and_never_above_its_peak(engine: Engine) -> None:
    memory = engine.memory()
    assert 10 << 20 < memory.now_bytes <= memory.peak_bytes
    assert memory.measure in ("pss, peak rss", "pss, peaks added", "rss")


async def test_stopping_leaves_no_process_and_no_socket(release: Release) -> None:
    engine = await release.start()
    assert isinstance(engine, ServedEngine)
    pid, folder = engine.pid, engine.socket.parent
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    await engine.stop()
    death = await engine.wait()
    assert death.cause is DeathCause.STOPPED
    assert not psutil.pid_exists(pid)
    assert not folder.exists()
    assert not await engine.healthy()
    await engine.stop()


async def test_a_killed_engine_dies_with_its_signal_and_fails_what_it_served(release: Release) -> None:
    async with release.running() as engine:
        stream = engine.generate(LONG)
        await anext(stream)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(OutsideError, match="signal 9") as caught:
            [item async for item in stream]
        assert caught.value.reason == Reason.REASON_ENGINE_FAILED
        death = await engine.wait()
        assert death.signal == signal.SIGKILL
        assert death.cause is DeathCause.KILLED
        assert not await engine.healthy()
        with pytest.raises(OutsideError):
            await collect(engine, ONE_TOKEN)
        if release.kind != EDGE_LLM:
            with pytest.raises(OutsideError):
                await engine.score([ScoreItem("a", ["b"])])


async def test_the_engine_reads_the_release_and_changes_nothing(release: Release) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in release.tree.rglob("*") if path.is_file())
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    async with release.running() as engine:
        await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=2))
    assert state() == before


@of_our_worker
async def test_each_token_says_when_it_was_computed_though_fast_ones_travel_together(
    engine: ServedEngine,
) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=100, ignore_eos=True)
    began, arrivals, made = time.monotonic(), [], []
    async for event in engine.generate(request):
        if isinstance(event, Token):
            assert event.at_seconds is not None
            made.append(event.at_seconds)
            arrivals.append(time.monotonic())
    assert began < made[0]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert all(computed < arrived for computed, arrived in zip(made, arrivals, strict=True))
