"""The ONNX Runtime engine against `transformers` on the same weights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edgewright_agent.engine_worker.model import onnx
from edgewright_agent.engine_worker.model.backend import ChatPrompt, InvalidRequestError
from edgewright_agent.engine_worker.model.tokenizer import ModelText
from edgewright_agent.engine_worker.requests.prompts import split_tokens
from edgewright_agent.engines import Engine, GenerationRequest, ScoreItem
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect
from tests.support.worker_runs import generate, score

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_onnx: Release) -> AsyncIterator[Engine]:
    async with tiny_onnx.running() as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(tiny_onnx: Release) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tiny_onnx.tree / "reference.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def text(tiny_onnx: Release) -> ModelText:
    return ModelText(tiny_onnx.tree / "tokenizer")


def load(release: Release) -> onnx.OnnxBackend:
    return onnx.OnnxBackend(release.tree / "engine", release.tree / "tokenizer", CONTEXT_TOKENS, threads=1)


async def test_log_likelihoods_are_those_of_transformers(engine: Engine, reference: dict[str, Any]) -> None:
    items = [ScoreItem(context, [continuation]) for context, continuation, *_ in reference["pairs"]]
    scored = [only for (only,) in await engine.score(items)]
    for found, (_, _, log_likelihood, tokens, is_greedy) in zip(scored, reference["pairs"], strict=True):
        assert found.log_likelihood == pytest.approx(log_likelihood, abs=1e-3)
        assert (found.tokens, found.is_greedy) == (tokens, is_greedy)


async def test_greedy_tokens_are_those_of_transformers(engine: Engine, reference: dict[str, Any]) -> None:
    request = GenerationRequest(prompt=reference["prompt"], max_tokens=24, ignore_eos=True)
    assert (await collect(engine, request))[1] == reference["greedy"]


async def test_the_chat_prompt_is_that_of_transformers(text: ModelText, reference: dict[str, Any]) -> None:
    assert text.chat(ChatPrompt(reference["messages"])) == reference["chat"]


async def test_no_usage_data_leaves_the_board(engine: Engine) -> None:
    environment = Path(f"/proc/{engine.pid}/environ").read_bytes().split(b"\0")
    assert b"ORT_DISABLE_TELEMETRY=1" in environment


async def test_the_context_is_the_smaller_of_plan_and_model(tiny_onnx: Release) -> None:
    engine, tokenizer = tiny_onnx.tree / "engine", tiny_onnx.tree / "tokenizer"
    assert onnx.OnnxBackend(engine, tokenizer, 100, threads=1).context_tokens == 100
    assert onnx.OnnxBackend(engine, tokenizer, 10_000, threads=1).context_tokens == CONTEXT_TOKENS


async def test_feeding_in_slices_changes_neither_scores_nor_tokens(
    tiny_onnx: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(tiny_onnx)
    monkeypatch.setattr(onnx, "LOGITS_BYTES_MAX", 3 * 4 * whole.vocab_size)
    sliced = load(tiny_onnx)
    prompt, continuations = list(range(40, 60)), [[70, 71, 72, 73, 74, 75, 76, 77], [80], [81, 82, 83, 84]]
    wholes, parts = score(whole, prompt, continuations), score(sliced, prompt, continuations)
    assert [part.log_likelihood for part in parts] == pytest.approx(
        [found.log_likelihood for found in wholes], abs=1e-4
    )
    assert [part.tokens for part in parts] == [8, 1, 4]
    assert sliced.slice_tokens == 3
    assert generate(sliced, prompt, 5) == generate(whole, prompt, 5)


async def test_characters_come_whole_with_their_last_byte(text: ModelText) -> None:
    tokens = text.encode("größe é", special=False)
    decode = text.decoder()
    pieces = [decode(token) for token in tokens]
    assert "".join(pieces) == "größe é"
    assert "" in pieces
    assert not any("�" in piece for piece in pieces)


async def test_an_empty_context_is_scored_after_the_first_special_token(text: ModelText) -> None:
    assert split_tokens(text, "", "the") == ([1], text.encode("the", special=False))
    assert split_tokens(text, "", "<|im_start|>the") == ([1], text.encode("the", special=False))
    assert split_tokens(text, "  ", "a") == split_tokens(text, "", "  a")


async def test_a_template_that_refuses_says_why(tmp_path: Path, tiny_onnx: Release) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_onnx.tree / "tokenizer" / name).read_bytes())
    without = ModelText(tmp_path)
    with pytest.raises(InvalidRequestError, match="no chat template"):
        without.chat(ChatPrompt([{"role": "user", "content": "hi"}]))
    template = "{% if messages|length > 1 %}{{ raise_exception('one at a time') }}{% endif %}{{ bos_token }}"
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    strict = ModelText(tmp_path)
    assert strict.chat(ChatPrompt([{"role": "user", "content": "hi"}])) == "<|im_start|>"
    with pytest.raises(InvalidRequestError, match="one at a time"):
        strict.chat(ChatPrompt([{"role": "user", "content": "hi"}] * 2))
