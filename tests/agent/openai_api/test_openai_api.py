"""The OpenAI-compatible API, through the official `openai` package, with a real engine process behind it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam

from edgewright.address import Address
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_agent.telemetry.types import EndedRequest, ServingSummary
from edgewright_builder.keys.credentials import create_credentials
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve, until
from tests.support.scripted_engine import Script

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why do plants need sunlight?"}]
TO_THE_END = {"ignore_eos": True}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Board]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
        async with board(tmp_path_factory.mktemp("board")) as running:
            await serve(running.agent, {**TREE, "engine/fake.json": b'{"words": 12}'})
            yield running


def served(running: Board) -> ServingSummary:
    return running.agent.telemetry.serving()


async def idle(running: Board) -> ServingSummary:
    """What was served, once nothing is under way."""
    while served(running).requests_in_flight:
        await asyncio.sleep(0.005)
    return served(running)


async def test_the_model_is_listed(fake: Board) -> None:
    (model,) = (await fake.client.models.list()).data
    assert model.id == "tiny"


async def test_one_model_can_be_asked_for_by_name(fake: Board) -> None:
    assert (await fake.client.models.retrieve("tiny")).id == "tiny"
    with pytest.raises(openai.NotFoundError, match=r"'huge'.*tiny is served") as error:
        await fake.client.models.retrieve("huge")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:80"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},  # browsers send no Origin with a picture or a script
    ],
)
async def test_without_a_key_web_pages_of_other_hosts_are_refused(
    fake: Board, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url, headers=headers) as http:
        answer = await http.get("/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8080"},
        {"host": "[::1]"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},  # localhost asks 127.0.0.1
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_without_a_key_every_name_of_this_machine_is_answered(
    fake: Board, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url, headers=headers) as http:
        assert (await http.get("/models")).status_code == 200


async def test_a_chat_comes_whole_or_streamed_and_is_the_same(fake: Board) -> None:
    whole = await fake.client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=0)
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    stream = await fake.client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *spoken, counted = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == choice.message.content
    assert spoken[0].choices[0].delta.role == "assistant"
    assert spoken[-1].choices[0].finish_reason == "stop"
    assert counted.choices == []
    assert counted.usage is not None
    assert whole.usage is not None
    assert counted.usage.completion_tokens == whole.usage.completion_tokens == len(spoken) - 1
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


async def test_a_completion_comes_whole_or_streamed_and_is_the_same(fake: Board) -> None:
    whole = await fake.client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=20)
    stream = await fake.client.completions.create(
        model="tiny", prompt="hello", temperature=0, max_tokens=20, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (20, "length")


async def test_counts_come_in_a_stream_only_if_asked_for(fake: Board) -> None:
    stream = await fake.client.completions.create(model="tiny", prompt="hello", stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stop_string_ends_the_text_before_it(fake: Board) -> None:
    async def text(**options: Any) -> tuple[str, str]:
        answer = await fake.client.completions.create(
            model="tiny", prompt="hello", temperature=0, max_tokens=60, **options
        )
        return answer.choices[0].text, answer.choices[0].finish_reason

    whole, _ = await text()
    words = whole.split()
    stop = words[2]
    assert await text(stop=[stop, "never in it"]) == (whole[: whole.index(stop)], "stop")


async def test_a_seed_makes_a_draw_repeatable(fake: Board) -> None:
    async def drawn(seed: int) -> str:
        answer = await fake.client.chat.completions.create(
            model="tiny", messages=MESSAGES, temperature=1.5, top_p=0.9, seed=seed, max_tokens=40
        )
        return str(answer.choices[0].message.content)

    first, again, other = [await drawn(seed) for seed in (7, 7, 8)]
    assert first == again != other


async def test_a_stream_is_measured_token_by_token(fake: Board) -> None:
    before = await idle(fake)
    stream = await fake.client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=11, stream=True, extra_body=TO_THE_END
    )
    assert [chunk async for chunk in stream]
    after = await idle(fake)
    assert after.requests == before.requests + 1
    assert after.generated_tokens == before.generated_tokens + 11
    assert after.prompt_tokens > before.prompt_tokens
    assert after.time_to_first_token_seconds.count == before.time_to_first_token_seconds.count + 1
    assert after.time_per_output_token_seconds.count == before.time_per_output_token_seconds.count + 1
    assert after.inter_token_latency_seconds.count == before.inter_token_latency_seconds.count + 10


async def test_a_whole_answer_counts_with_its_tokens_and_no_made_up_latency(fake: Board) -> None:
    before = await idle(fake)
    await fake.client.completions.create(model="tiny", prompt="hello", max_tokens=9, extra_body=TO_THE_END)
    after = await idle(fake)
    assert after.generated_tokens == before.generated_tokens + 9
    assert after.time_to_first_token_seconds == before.time_to_first_token_seconds


async def test_an_unknown_model_is_not_found(fake: Board) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await fake.client.completions.create(model="gpt-5", prompt="hello")
    assert error.value.code == "model_not_found"
    assert "'gpt-5'" in str(error.value)
    assert "'tiny'" in str(error.value)


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(fake: Board) -> None:
    with pytest.raises(openai.BadRequestError, match=r"300.*256") as error:
        await fake.client.completions.create(model="tiny", prompt="x" * 300)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"stop": [""]},
        {"stop": ["s"] * 9},
        {"n": 3},
        {"seed": "seven"},
        {"stream": "yes"},
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        {"stream": True, "stream_options": 3},
        {"logit_bias": {"5": 100}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
    ],
)
async def test_a_wrong_value_is_refused_by_name(fake: Board, options: dict[str, Any]) -> None:
    body = {"model": "tiny", "messages": MESSAGES, **options}
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", content=json.dumps(body))  # NaN too
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    assert error["type"] == "invalid_request_error"
    assert next(reversed(options)).split("_")[0] in error["message"]
    await still_serves(fake)


async def test_a_request_that_its_client_got_wrong_is_no_failure_of_the_board(fake: Board) -> None:
    before = await idle(fake)
    with pytest.raises(openai.BadRequestError):
        await fake.client.completions.create(model="tiny", prompt="hello", temperature=-1)
    with pytest.raises(openai.NotFoundError):
        await fake.client.completions.create(model="gpt-5", prompt="hello")
    after = await idle(fake)
    assert after.requests == before.requests
    assert after.requests_failed == before.requests_failed
    assert after.requests_rejected == before.requests_rejected + 2


@pytest.mark.parametrize(
    "options",
    [
        {"functions": [{"name": "f", "parameters": {}}]},
        {"function_call": {"name": "f"}},
        {"tool_choice": "required"},
        {"reasoning_effort": "high"},
        {"modalities": ["text", "audio"]},
        {"top_k": 40},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"min_tokens": 5},
        {"stop_token_ids": [7]},
        {"guided_json": {"type": "object"}},
        {"grammar": "root ::= [a-z]"},
        {"presence_penalty": 0.5},
        {"n": 3},
        {"prediction": {"type": "content", "content": "x"}},
        {"add_special_tokens": False},
        {"thinking_token_budget": 9},
        {"n_predict": 3},
        {"samplers": ["top_k"]},
        {"dry_multiplier": 0.8},
        {"xtc_probability": 0.5},
        {"dynatemp_range": 0.5},
        {"top_n_sigma": 1.0},
    ],
)
async def test_a_field_that_would_change_the_answer_and_is_not_there_is_refused_by_name(
    fake: Board, options: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", json={"messages": MESSAGES, **options})
    assert answer.status_code == 400
    (name,) = options
    assert answer.json()["error"]["message"].startswith(f"{name}: This engine does not have it; leave it out")


@pytest.mark.parametrize(
    "neutral",
    [
        {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0, "stop_token_ids": []},
        {"top_k": -1, "guided_json": None, "skip_special_tokens": True},
        {
            "modalities": ["text"],
            "reasoning_effort": None,
            "functions": None,
            "tools": [],
            "tool_choice": "none",
        },
        {"logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "n": 1},
        {
            "user": "me",
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "parallel_tool_calls": True,
        },
    ],
)
async def test_a_field_at_its_neutral_value_or_that_changes_no_answer_passes(
    fake: Board, neutral: dict[str, Any]
) -> None:
    assert await chat_text(fake, MESSAGES, **neutral) == await chat_text(fake, MESSAGES)


async def test_a_developer_s_message_is_a_system_message(fake: Board) -> None:
    texts = [
        await chat_text(fake, [{"role": role, "content": "Be brief."}, *MESSAGES])
        for role in ("system", "developer", "user")
    ]
    assert texts[0] == texts[1] != texts[2]


async def chat_text(running: Board, messages: list[Any], **options: Any) -> str:
    body = {"messages": messages, "temperature": 0, "max_tokens": 40, **options}
    async with httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def still_serves(running: Board) -> None:
    answer = await running.client.completions.create(
        model="tiny", prompt="hello", max_tokens=2, extra_body=TO_THE_END
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize("path", ["/v1/score", "/v1/adapter", "/health", "/", "/v1", "/v1/../v1/score"])
async def test_the_engines_private_routes_are_not_there(fake: Board, path: str) -> None:
    async with httpx.AsyncClient(base_url=fake.url.removesuffix("/v1")) as http:
        answer = await http.post(path, json={"items": [], "file": None, "model": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


async def test_a_wrong_method_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.get("/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_without_a_release_the_answer_is_503_and_says_so(tmp_path: Path) -> None:
    async with board(tmp_path, script=Script()) as empty:
        for call in (
            empty.client.models.list(),
            empty.client.completions.create(model="tiny", prompt="hello"),
        ):
            with pytest.raises(openai.InternalServerError, match="No release is being served") as error:
                await call
            assert error.value.status_code == 503
            assert error.value.code == "no_active_release"


async def test_a_client_that_leaves_frees_the_engine_at_once(tmp_path: Path) -> None:
    script = Script(pause_seconds=0.005)
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE)
        stream = await running.client.completions.create(
            model="tiny", prompt="hello", max_tokens=100_000, stream=True
        )
        await anext(aiter(stream))
        (engine,) = script.running
        assert engine.active_requests == 1
        await stream.close()
        await until(lambda: not engine.active_requests and not served(running).requests_in_flight, 1.0)
        await running.client.completions.with_raw_response.create(model="tiny", prompt="x", max_tokens=1)


async def test_leaving_frees_the_engines_process_too(fake: Board) -> None:
    stream = await fake.client.completions.create(
        model="tiny", prompt="hello", max_tokens=200, stream=True, extra_body=TO_THE_END
    )
    await anext(aiter(stream))
    await stream.close()
    await asyncio.wait_for(still_serves(fake), 5.0)
    await until(lambda: not served(fake).requests_in_flight, 5.0)


async def test_eight_clients_at_once_are_all_served_and_more_are_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    script = Script(pause_seconds=0.01)
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE, limits={"context_tokens": 256, "concurrency": 1})

        async def ask(tokens: int) -> int:
            stream = await running.client.completions.create(
                model="tiny", prompt="hello", max_tokens=tokens, stream=True
            )
            return len([chunk async for chunk in stream])

        assert await asyncio.gather(*(ask(5) for _ in range(8))) == [5] * 8
        crowd = [asyncio.create_task(ask(30)) for _ in range(12)]
        done = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [each for each in done if isinstance(each, openai.RateLimitError)]
        assert len(refused) == 3  # one is served, eight wait
        assert done.count(30) == 9
        assert refused[0].code == "rate_limit_exceeded"
        assert 1 <= int(refused[0].response.headers["retry-after"]) <= 60
        assert served(running).requests_rejected == 3


async def test_an_engine_that_dies_is_an_error_in_the_stream_and_comes_back(tmp_path: Path) -> None:
    script = Script(pause_seconds=0.005)
    ended: list[EndedRequest] = []
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE)
        running.agent.telemetry.subscribe(ended.append)
        stream = await running.client.completions.create(
            model="tiny", prompt="hello", max_tokens=1000, stream=True
        )
        chunks = aiter(stream)
        await anext(chunks)
        script.running[0].die()
        with pytest.raises(openai.APIError, match="The engine is gone"):
            async for _ in chunks:
                pass
        while len(script.engines) < 2:
            await asyncio.sleep(0.005)
        assert [request.finish_reason for request in ended] == ["error"]


async def test_where_a_key_is_set_requests_need_it(tmp_path: Path) -> None:
    settings = OpenAISettings(Address("127.0.0.1", 0), key="k" * 32)
    async with board(tmp_path, settings, script=Script()) as running:
        await serve(running.agent, TREE)
        assert await running.client.completions.with_raw_response.create(model="tiny", prompt="hello")
        for key in ("k" * 31, "K" * 32):
            with pytest.raises(openai.AuthenticationError) as error:
                await running.client.with_options(api_key=key).models.list()
            assert error.value.code == "invalid_api_key"


async def test_programs_on_the_board_may_use_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    async with board(tmp_path, OpenAISettings(path), script=Script()) as running:
        await serve(running.agent, TREE)
        assert running.url == f"unix:{path}"
        assert path.stat().st_mode & 0o007 == 0
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://board/v1") as http:
            answer = await http.post("/completions", json={"prompt": "hello"})
        assert answer.status_code == 200
    assert not path.exists()


async def test_other_machines_need_the_key_and_tls(
    tmp_path: Path, credentials: Path, trusting: ssl.SSLContext
) -> None:
    tls = TlsFiles(credentials / "agent.pem", credentials / "agent.key", credentials / "ca.pem")
    settings = OpenAISettings(Address("0.0.0.0", 0), key="k" * 32, tls=tls)
    async with board(tmp_path, settings, script=Script()) as running:
        await serve(running.agent, TREE)
        url = running.url.replace("0.0.0.0", "localhost")
        assert url.startswith("https://")
        headers = {"authorization": "Bearer " + "k" * 32}
        async with httpx.AsyncClient(verify=trusting, base_url=url) as http:
            answer = await http.post("/completions", json={"prompt": "hello"}, headers=headers)
            assert answer.status_code == 200
            assert (await http.get("/models")).status_code == 401


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder / "keys")
    return folder / "keys"


@pytest.fixture
def trusting(credentials: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(credentials / "ca.pem"))


@pytest.mark.parametrize("field", [{"audio": {"id": "1"}}, {"tool_calls": [{"id": "1"}]}])
async def test_a_field_of_a_message_that_templates_do_not_know_is_refused_by_name(
    fake: Board, field: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi", **field}]}
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 400
    (name,) = field
    assert answer.json()["error"]["message"].startswith(f"messages.0.{name}: This engine does not have it")


async def test_a_list_of_one_prompt_is_that_prompt_and_of_two_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:

        async def answer(prompt: object) -> httpx.Response:
            return await http.post("/completions", json={"prompt": prompt, "max_tokens": 4, "temperature": 0})

        alone, listed = await answer("hello"), await answer(["hello"])
        assert listed.json()["choices"][0]["text"] == alone.json()["choices"][0]["text"]
        assert (await answer(["hello", "you"])).status_code == 400
        assert (await answer([[1, 2]])).status_code == 200
