"""llama.cpp itself: its scores, tokens inside characters, wrong bodies, and files that it can't load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright_agent.engines import (
    DeathCause,
    EngineLimits,
    GenerationRequest,
    ScoreItem,
    Token,
    start_engine,
)
from edgewright_agent.engines.llama_cpp.completion import CompletionStream, folded
from edgewright_agent.engines.llama_cpp.log import WORDS
from edgewright_agent.engines.process.death import classify
from edgewright_agent.engines.protocol.requests import UNTOLD_ID
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.runtime.threads import within
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect, tiny_llama_release
from tests.support.relay_transport import RelayTransport
from tests.support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.asyncio(loop_scope="module")
END = 2  # of a sequence


@pytest.fixture(scope="module")
def release(tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return tiny_llama_release(tiny_onnx, tmp_path_factory.mktemp("llama"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(tiny_onnx: Release) -> AsyncIterator[dict[str, Any]]:
    yield json.loads((tiny_onnx.tree / "reference.json").read_text(encoding="utf-8"))


async def test_scores_are_those_that_transformers_computes(
    engine: ServedEngine, reference: dict[str, Any]
) -> None:
    pairs = reference["pairs"]
    scores = await engine.score([ScoreItem(context, [more]) for context, more, *_ in pairs])
    for (score,), (_, _, log_likelihood, tokens, is_greedy) in zip(scores, pairs, strict=True):
        assert score.tokens == tokens
        assert score.is_greedy == is_greedy
        # Keys and values have 16 bits here, and 32 there.
        assert score.log_likelihood == pytest.approx(log_likelihood, abs=5e-3 * tokens)


async def test_greedy_tokens_are_those_that_transformers_writes(
    engine: ServedEngine, reference: dict[str, Any]
) -> None:
    expected = reference["greedy"]
    request = GenerationRequest(prompt=reference["prompt"], max_tokens=expected.index(END))
    assert (await collect(engine, request))[1] == expected[: expected.index(END)]


async def test_the_chat_template_is_rendered_as_by_the_tokenizer(
    engine: ServedEngine, reference: dict[str, Any]
) -> None:
    chat = GenerationRequest(messages=reference["messages"], max_tokens=4)
    plain = GenerationRequest(prompt=reference["chat"], max_tokens=4)
    assert await collect(engine, chat) == await collect(engine, plain)


async def test_an_end_of_sequence_in_a_continuation_is_scored_too(engine: ServedEngine) -> None:
    (first,), (both,) = await engine.score(
        [ScoreItem("the cat", [" the"]), ScoreItem("the cat", [" the<|im_end|>"])]
    )
    assert both.tokens == first.tokens + 1
    assert both.log_likelihood < first.log_likelihood


async def test_adapters_are_refused(engine: ServedEngine, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="takes no adapters"):
        await engine.use_adapter(tmp_path / "adapter", "other")
    assert (await collect(engine, GenerationRequest(prompt="the", max_tokens=1)))[2].generated_tokens == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'{"prompt": "x", "temperature": "hot"}', 400),
        (b'{"prompt": "x", "temperature": NaN}', 400),
        (b'{"prompt": "x", "top_p": 1.5}', 400),
        (b'{"prompt": "x", "n": 2}', 400),
        (b'{"prompt": "x", "logprobs": 6}', 400),
        (b'{"prompt": "x", "echo": true}', 400),
        (b'{"prompt": "x", "stop": ""}', 400),
        (b'{"prompt": "x", "max_tokens": -1}', 400),
        (b'{"prompt": ""}', 400),
        (b'{"prompt": [1, 2, 99999]}', 400),
        (b'{"prompt": [true]}', 400),
        (b'{"max_tokens": 3}', 400),
        (b'{"prompt": "x", "model": "another"}', 404),
        (b'{"prompt": "x", "max_tokens": 300}', 400),
    ],
)
async def test_a_wrong_body_is_refused_in_openai_s_form(
    http: httpx.AsyncClient, body: bytes, status: int
) -> None:
    response = await http.post("/v1/completions", content=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


async def test_what_a_request_leaves_out_is_openai_s_default(http: httpx.AsyncClient) -> None:
    """llama.cpp's own are a temperature of 0.8 and the 40 best tokens."""
    body = {"prompt": "on the other hand", "seed": 5, "ignore_eos": True}
    left_out = (await http.post("/v1/completions", json=body)).json()
    given = (
        await http.post("/v1/completions", json=body | {"temperature": 1, "top_p": 1, "max_tokens": 16})
    ).json()
    assert left_out["choices"] == given["choices"]
    assert left_out["usage"]["completion_tokens"] == 16


async def test_every_token_has_its_place_among_the_log_probabilities(
    engine: ServedEngine, http: httpx.AsyncClient
) -> None:
    """Of a token that ends inside a character the server tells nothing: then its place is empty, not another's."""
    prompt = {"prompt": "on the other hand", "seed": 7, "max_tokens": 60, "ignore_eos": True}
    body = prompt | {"logprobs": 2, "return_token_ids": True}
    (choice,) = (await http.post("/v1/completions", json=body)).json()["choices"]
    told = choice["logprobs"]
    assert len(choice["token_ids"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == 60
    assert None in told["token_logprobs"]
    request = GenerationRequest(
        prompt="on the other hand", seed=7, max_tokens=60, temperature=1.0, ignore_eos=True
    )
    _, exact, _ = await collect(engine, replace(request, exact=True))
    assert exact == choice["token_ids"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi", "stream": True}),
    ],
)
async def test_ids_of_tokens_that_it_can_not_name_are_refused(
    http: httpx.AsyncClient, route: str, body: dict[str, Any]
) -> None:
    asked = body | {"max_tokens": 3, "return_token_ids": True}
    answer = await http.post(route, json=asked)
    assert answer.status_code == 400, answer.text
    assert "return_token_ids" in answer.json()["error"]["message"]
    assert (await http.post(route, json=asked | {"return_token_ids": False})).status_code == 200


async def test_log_probabilities_of_a_stream_have_openai_s_lists(http: httpx.AsyncClient) -> None:
    body = {"prompt": "on the other hand", "max_tokens": 3, "temperature": 0, "logprobs": 1, "stream": True}
    text = (await http.post("/v1/completions", json=body)).text
    lines = [line for line in text.splitlines() if line.startswith("data: ")]  # beside comments that say when
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    choices = [chunk["choices"][0] for chunk in chunks]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert [len(each["tokens"]) for each in told] == [1, 1, 1]
    assert [each["text_offset"] for each in told] == [[0], [1], [2]]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("architecture", "unknown model architecture: 'gemma9'"),
        ("cut", "model is corrupted or incomplete"),
    ],
)
async def test_a_file_it_can_not_load_is_told_in_one_sentence(
    tiny_onnx: Release, tmp_path: Path, spoil: str, why: str
) -> None:
    release = tiny_llama_release(tiny_onnx, tmp_path / "release")
    model = release.tree / "engine/model.gguf"
    if spoil == "architecture":
        write_tiny_gguf(tiny_onnx.tree / "checkpoint", model, architecture="gemma9")
    else:
        model.write_bytes(model.read_bytes()[:200_000])
    with pytest.raises(OutsideError, match=f"did not start: exited .*{why}") as caught:
        await release.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"junk", "begins with b'junk'")])
async def test_what_is_no_gguf_file_is_not_started(
    tiny_onnx: Release, tmp_path: Path, content: bytes | None, why: str
) -> None:
    release = tiny_llama_release(tiny_onnx, tmp_path / "release")
    model = release.tree / "engine/model.gguf"
    model.unlink()
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(InputError, match=f"holds no model for llama.cpp.*{why}"):
        await release.start()


async def test_it_does_not_live_beyond_its_budget(tiny_onnx: Release, tmp_path: Path) -> None:
    """By the kernel while it loads, where the agent may make a control group; else by the agent once it serves."""
    release = tiny_llama_release(tiny_onnx, tmp_path / "release")
    try:
        engine = await start_engine(
            "llama.cpp", release.tree, release.manifest, EngineLimits(256, threads=1, memory_bytes=2**24),
            runtime_dir=release.runtime_dir, ready_timeout_seconds=60,
        )  # fmt: skip
    except OutsideError as error:
        assert "out of memory" in str(error) or "over its memory budget" in str(error)  # noqa: PT017 - either is right
        return
    death = await within(30, engine.wait())
    assert death.cause in (DeathCause.OVER_BUDGET, DeathCause.OUT_OF_MEMORY)


async def test_each_of_several_requests_at_once_has_a_whole_context(
    tiny_onnx: Release, tmp_path: Path
) -> None:
    release = replace(tiny_llama_release(tiny_onnx, tmp_path / "release"), concurrency=3)
    async with release.running() as engine:
        requests = [GenerationRequest(prompt=f"{n} cats", ignore_eos=True) for n in range(3)]
        answers = await asyncio.gather(*(collect(engine, request) for request in requests))
        assert await engine.requests_together(3, 256) == 3
    for _, tokens, finish in answers:
        assert finish.prompt_tokens + len(tokens) == CONTEXT_TOKENS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three_at_once(release: Release) -> AsyncIterator[httpx.AsyncClient]:
    """A server with room for three answers, which it would write for one request too."""
    async with replace(release, concurrency=3, runtime_dir=release.runtime_dir / "three").running() as engine:
        assert isinstance(engine, ServedEngine)
        async with httpx.AsyncClient(transport=RelayTransport(engine), base_url="http://engine") as http:
            yield http


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "several",
    [
        {"n": 3},
        {"n": 3, "return_token_ids": True},
        {"n_cmpl": 3},
        {"n": 1, "n_cmpl": 3},
        {"best_of": 3},
        {"prompt": ["hi", "hello"]},
        {"prompt": [[5, 6], [7]]},
        {"prompt": ["hi", [7]]},
    ],
    ids=str,
)
async def test_several_answers_whose_tokens_it_would_not_all_count_are_refused_by_name(
    three_at_once: httpx.AsyncClient, several: dict[str, Any], stream: bool
) -> None:
    """The server's usage has the tokens of one answer and of the first prompt, however many there are."""
    body = {"prompt": "hi", "max_tokens": 5, "stream": stream, **several}
    answer = await three_at_once.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
    if "prompt" in several:
        assert error["message"] == (
            f"prompt: This engine takes one prompt a request; send one, not {several['prompt']}."
        )
    else:
        name = next(name for name in several if several[name] == 3)
        assert error["message"] == f"{name}: This engine does not have it; leave it out or give 1, not 3."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["n", "n_cmpl", "best_of"])
async def test_several_answers_to_a_chat_are_refused_by_name(
    three_at_once: httpx.AsyncClient, name: str, stream: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": stream, name: 2}
    answer = await three_at_once.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    message = f"{name}: This engine does not have it; leave it out or give 1, not 2."
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize(
    "one",
    [{"n": 1}, {"n_cmpl": 1}, {"best_of": 1}, {"n": None}, {"prompt": ["hi"]}, {"prompt": [[5, 6]]}],
    ids=str,
)
async def test_one_answer_passes_however_it_is_asked_for_and_every_token_counts(
    three_at_once: httpx.AsyncClient, one: dict[str, Any]
) -> None:
    body = {"prompt": [5, 6], "max_tokens": 5, "ignore_eos": True, **one}
    answer = (await three_at_once.post("/v1/completions", json=body)).json()
    assert len(answer["choices"]) == 1
    assert answer["usage"]["completion_tokens"] == 5
    if body["prompt"] != ["hi"]:
        assert answer["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    "limit",
    [
        {"n_predict": 9},
        {"n_predict": 3},
        {"n_predict": -1},
        {"n_predict": 0},
        {"max_new_tokens": 9},
        {"max_output_tokens": 9},
    ],
    ids=str,
)
async def test_another_name_for_the_limit_of_tokens_is_refused(
    http: httpx.AsyncClient, limit: dict[str, int], chat: bool, stream: bool
) -> None:
    """The server obeys n_predict before max_tokens, which alone is held against the room in the context."""
    prompt = {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
    body = {**prompt, "max_tokens": 5, "ignore_eos": True, "stream": stream, **limit}
    answer = await http.post("/v1/chat/completions" if chat else "/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    message = f"{next(iter(limit))}: This engine does not have it; use max_tokens instead."
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize("name", ["n_predict", "max_new_tokens", "max_output_tokens"])
async def test_a_limit_of_tokens_that_is_null_is_none(http: httpx.AsyncClient, name: str) -> None:
    body = {"prompt": "hi", "max_tokens": 5, "ignore_eos": True, name: None}
    answer = (await http.post("/v1/completions", json=body)).json()
    assert answer["usage"]["completion_tokens"] == 5


async def test_too_little_memory_is_told_with_ggml_s_own_line() -> None:
    lines = [
        "0.02.361.933 E ggml_aligned_malloc: insufficient memory (attempted to allocate 65919.38 MB)",
        "0.02.431.592 E llama_init_from_model: failed to allocate buffer for kv cache",
        "0.02.451.960 E srv          init: exiting due to model loading error",
    ]
    death = classify(1, asked=False, killed_for_memory=False, last_lines=lines, words=WORDS)
    assert death.sentence == (
        "out of memory (exit code 1); it said: llama_init_from_model: failed to allocate buffer for kv cache"
    )


async def _stream(chunks: Sequence[dict[str, Any]]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"


SPLIT = [
    {"content": "a", "tokens": [7], "tokens_predicted": 1},
    {"content": " 😂", "tokens": [22], "tokens_predicted": 4},  # the two before it brought no event
    {"content": "", "tokens": [], "tokens_predicted": 4, "tokens_evaluated": 3, "stop_type": "limit"},
]


@pytest.mark.parametrize(
    ("written", "expected"),
    [([20, 21, 22], [7, 20, 21, 22]), ([20, 23], [7, UNTOLD_ID, UNTOLD_ID, 22])],
)
async def test_tokens_inside_a_character_are_counted_and_named_where_they_can_be(
    written: list[int], expected: list[int]
) -> None:
    async def tokens_of(text: str) -> list[int]:
        assert text == " 😂"
        return written

    *tokens, finish = [item async for item in CompletionStream(tokens_of).read(_stream(SPLIT))]
    assert [token.id for token in tokens if isinstance(token, Token)] == expected
    assert "".join(token.text for token in tokens if isinstance(token, Token)) == "a 😂"
    assert not isinstance(finish, Token)
    assert finish.generated_tokens == 4


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**64 - 1, (2**32 - 1) << 32])
async def test_no_seed_becomes_the_one_that_means_none(seed: int) -> None:
    assert 0 <= folded(seed) < 2**32 - 1
