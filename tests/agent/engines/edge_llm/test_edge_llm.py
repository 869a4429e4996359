"""TensorRT Edge-LLM where it differs from the other engines, on the stand-in: its port, its key, what it can't do."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    EngineLimits,
    GenerationRequest,
    ScoreItem,
    available_engines,
    start_engine,
)
from edgewright_agent.engines.edge_llm.checkpoint import adds_bos, complaint_of_config, end_tokens
from edgewright_agent.engines.edge_llm.log import BUILT_AT_START, WORDS, BuildLog, step_of
from edgewright_agent.engines.edge_llm.wheel import COMMAND_VARIABLE
from edgewright_agent.engines.process.death import DeathCause, classify
from edgewright_agent.engines.protocol.requests import UNTOLD_ID
from edgewright_agent.engines.served import ServedEngine
from tests.support.edge_llm_stub.install import TENSORRT, install_edge_llm
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect, edge_llm_release
from tests.support.relay_transport import RelayTransport

KIND = "tensorrt-edge-llm"
KEY_VARIABLE = "EDGEWRIGHT_ENGINE_KEY"


@pytest.fixture
def release(tiny_onnx: Release, tmp_path: Path) -> Release:
    return edge_llm_release(tiny_onnx, tmp_path)


@pytest.fixture
async def served(release: Release) -> AsyncIterator[ServedEngine]:
    async with release.running() as engine:
        assert isinstance(engine, ServedEngine)
        yield engine


async def ask(engine: ServedEngine, route: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(transport=RelayTransport(engine), base_url="http://engine") as http:
        return await http.post(route, json=body)


def port_of(engine: ServedEngine) -> int:
    (port,) = {
        each.laddr.port
        for each in psutil.Process(engine.pid).net_connections()
        if each.status == psutil.CONN_LISTEN
    }
    return port


async def test_it_listens_on_loopback_alone_and_answers_nobody_without_its_key(served: ServedEngine) -> None:
    listening = [
        each for each in psutil.Process(served.pid).net_connections() if each.status == psutil.CONN_LISTEN
    ]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(served)}") as http:
        for headers in ({}, {"authorization": "Bearer guessed"}):
            body = {"messages": [{"role": "user", "content": "hi"}]}
            assert (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 401
    assert (await ask(served, "/v1/chat/completions", {**body, "max_tokens": 1})).status_code == 200


async def test_neither_port_nor_key_can_be_read_from_its_command_line(served: ServedEngine) -> None:
    process = psutil.Process(served.pid)
    tree = [process, *process.children(recursive=True)]
    keys = [each.environ()[KEY_VARIABLE] for each in tree if KEY_VARIABLE in each.environ()]
    assert keys
    for each in tree:
        line = " ".join(each.cmdline())
        assert keys[0] not in line
        assert str(port_of(served)) not in line


async def test_whatever_its_key_the_server_takes_it_for_no_option(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the alphabet for URLs these bytes would be a word of dashes, which a command line takes for an option."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size: (b"\xfb\xef\xbe" * size)[:size])
    async with release.running() as engine:
        assert isinstance(engine, ServedEngine)
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        assert (await ask(engine, "/v1/chat/completions", body)).status_code == 200


async def test_scores_and_adapters_are_refused_by_name(served: ServedEngine) -> None:
    with pytest.raises(RefusedError, match="log-probabilities of a text that it did not write") as caught:
        await served.score([ScoreItem("a", ["b"])])
    assert caught.value.reason == Reason.REASON_ENGINE_UNAVAILABLE
    with pytest.raises(RefusedError, match="takes no adapters"):
        await served.use_adapter(None, "tiny")


async def test_what_a_client_leaves_out_is_openai_s_default(served: ServedEngine) -> None:
    """The server's own are temperature 0.7 and 2,048 tokens: with another temperature other letters come."""
    body = {"messages": [{"role": "user", "content": "hi"}], "seed": 5, "ignore_eos": True}
    answer = (await ask(served, "/v1/chat/completions", body)).json()
    assert answer["usage"]["total_tokens"] == CONTEXT_TOKENS
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_log_probabilities_come_for_each_token_with_as_many_alternatives_as_asked(
    served: ServedEngine,
) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 3,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    answer = (await ask(served, "/v1/chat/completions", body)).json()
    steps = answer["choices"][0]["logprobs"]["content"]
    assert [len(step["top_logprobs"]) for step in steps] == [2, 2, 2]
    without = (
        await ask(served, "/v1/chat/completions", {**body, "logprobs": False, "top_logprobs": None})
    ).json()
    assert without["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"prompt": [1, 2]}, "completes one text"),
        ({"prompt": ["a", "b"]}, "completes one text"),
        ({"prompt": "a", "echo": True}, "no echo"),
        ({"prompt": "a", "suffix": "b"}, "no suffix"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "user": "me"}, "Extra inputs are not permitted"),
        ({"prompt": "a" * 300}, "The prompt has 300 tokens"),
    ],
)
async def test_a_completion_that_it_can_t_answer_is_refused_in_openai_s_form(
    served: ServedEngine, body: dict[str, Any], told: str
) -> None:
    response = await ask(served, "/v1/completions", body)
    assert 400 <= response.status_code < 500
    assert told in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_text_that_a_stop_string_held_back_loses_no_letter(served: ServedEngine) -> None:
    request = GenerationRequest(prompt="on", max_tokens=30)
    whole, tokens, _ = await collect(served, request)
    assert UNTOLD_ID not in tokens
    stop = whole[5] + "\0"
    text, again, finish = await collect(served, GenerationRequest(prompt="on", max_tokens=30, stop=[stop]))
    assert (text, again, finish.reason) == (whole, tokens, "length")


async def test_several_contexts_are_batched_in_flight(tiny_onnx: Release, tmp_path: Path) -> None:
    release = edge_llm_release(tiny_onnx, tmp_path, concurrency=3)
    async with release.running() as engine:
        assert isinstance(engine, ServedEngine)
        line = " ".join(psutil.Process(engine.pid).cmdline())
        assert "--enable-in-flight-batching" in line
        assert "--max-batch-size 3" in line
        assert await engine.requests_together(3, CONTEXT_TOKENS) == 3


async def test_a_server_that_ends_says_why(release: Release) -> None:
    stub = release.tree / "engine/stub.json"
    stub.write_text(json.dumps({"ends": "TensorRT prerequisite error: libnvinfer.so.10 cannot be loaded"}))
    with pytest.raises(OutsideError, match=r"TensorRT prerequisite error: libnvinfer\.so\.10") as caught:
        await release.start()
    assert caught.value.reason == Reason.REASON_ENGINE_FAILED


async def test_nothing_is_started_before_its_engine_was_prepared(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in release.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OutsideError, match=r"has no engine for TensorRT Edge-LLM 0\.11\.0 yet"):
        await start_engine(
            KIND, release.tree, release.manifest, EngineLimits(CONTEXT_TOKENS),
            runtime_dir=release.runtime_dir, ready_timeout_seconds=5,
        )  # fmt: skip
    assert not list(release.runtime_dir.iterdir())


def test_the_board_lists_it_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, str(install_edge_llm(tmp_path / "venv")))
    info = next(info for info in available_engines() if info.kind == KIND)
    assert (info.available, info.version) == (True, "0.11.0")
    assert TENSORRT in info.detail


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"version": "0.12.0"}, "this agent knows the command line and HTTP of 0.11"),
        ({"python_abi": "cp27"}, "it is for cp27 on "),
        ({"cpu_arch": "riscv64"}, "on riscv64, and this is "),
        ({"tensorrt": False}, "TensorRT's Python package is not in its environment"),
        (
            {"platform_probe_source": "l4t", "platform_probe_values": ["R39.2"]},
            "it is for Jetson Linux 39.2, and this is another system",
        ),
    ],
)
def test_a_wheel_for_another_board_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], told: str
) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, str(install_edge_llm(tmp_path / "venv", **row)))
    info = next(info for info in available_engines() if info.kind == KIND)
    assert not info.available
    assert told in info.detail


def test_a_missing_wheel_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND_VARIABLE, "/nowhere/tensorrt-edgellm-serve")
    info = next(info for info in available_engines() if info.kind == KIND)
    assert not info.available
    assert "install it with its extra `server`" in info.detail


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "qwen3", "quantization_config": {"quant_method": "gptq", "group_size": 128}}, None),
        ({"model_type": "gemma3_text"}, "the model is gemma3_text"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "group_size": 32}},
            "groups of 32",
        ),
        ({"model_type": "llama", "quantization_config": {"quant_method": "awq"}}, "this one is awq"),
    ],
)
def test_a_checkpoint_that_its_builder_does_not_take_is_named(
    config: dict[str, Any], told: str | None
) -> None:
    why = complaint_of_config(config)
    assert why == told or (told is not None and why is not None and told in why)


async def test_an_unsupported_architecture_is_refused_before_anything_is_built(release: Release) -> None:
    config = release.tree / "engine/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "gemma3_text"}))
    with pytest.raises(InputError, match=r"can't serve the release: .*gemma3_text"):
        await release.start()
    assert not (release.tree.parent / "prepared").exists()


@pytest.mark.parametrize(
    ("processor", "adds"),
    [
        (None, False),
        ({"type": "ByteLevel"}, False),
        (
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
            },
            True,
        ),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}, False),
        (
            {
                "type": "Sequence",
                "processors": [
                    {"type": "ByteLevel"},
                    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
                ],
            },
            True,
        ),
    ],
)
def test_whether_a_tokenizer_begins_with_bos_is_read_from_it(
    tmp_path: Path, processor: Any, adds: bool
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"post_processor": processor}), encoding="utf-8")
    assert adds_bos(tmp_path) is adds


def test_the_ends_of_a_text_are_the_generation_s_before_the_model_s(tmp_path: Path) -> None:
    assert end_tokens(tmp_path, {"eos_token_id": 7}) == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}', encoding="utf-8")
    assert end_tokens(tmp_path, {"eos_token_id": 7}) == (1, 2)
    assert end_tokens(tmp_path / "nowhere", {}) == ()


BUILD_LOG = (
    "2026-11-29 07:00:00,001 INFO experimental.builder: Building component llm",
    "2026-11-29 07:00:01,001 INFO experimental.builder.core.builder: [TRT] Compiler backend is used.",
)


def test_steps_are_the_builder_s_own_and_not_tensorrt_s() -> None:
    assert [step_of(line) for line in BUILD_LOG] == ["Building component llm", None]


def test_a_server_that_builds_anew_at_its_start_is_slow() -> None:
    log = BuildLog()
    for line in (*BUILD_LOG, *BUILD_LOG):
        log.read(line)
    assert log.slow_kernels == [BUILT_AT_START]


@pytest.mark.parametrize(
    "line",
    [
        "[TRT] Error Code 2: OutOfMemory (Requested size was 536870912 bytes.)",
        "[TRT] Requested amount of GPU memory (536870912 bytes) could not be allocated.",
        "RuntimeError: cudaErrorMemoryAllocation",
    ],
)
def test_tensorrt_s_spellings_of_out_of_memory_are_known(line: str) -> None:
    lines = (
        f"2026-11-29 07:00:00,001 ERROR experimental.builder.core.builder: {line}",
        "RuntimeError: build_serialized_network returned None",
    )
    death = classify(1, asked=False, killed_for_memory=False, last_lines=lines, words=WORDS)
    assert death.cause is DeathCause.OUT_OF_MEMORY
    assert death.sentence.endswith(line.rstrip("."))
