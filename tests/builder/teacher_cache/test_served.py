"""A teacher behind a server: what is asked, kept and refused."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright_builder.alignment.vocabulary import read_vocabulary
from edgewright_builder.model_server.retries import RetryPolicy
from edgewright_builder.models.folder import load_model
from edgewright_builder.teacher_cache.prompt_scores import PromptScores
from edgewright_builder.teacher_cache.top_answers import cache_answers, read_answers
from tests.support.knowledge_server import Form, KnowledgeModel
from tests.support.teacher_server import Reply, TeacherServer, json_reply, teacher_server
from tests.support.two_vocabularies import (
    TwoModels,
    samples_of,
    student_tokenizer,
    teacher_tokenizer,
    write_models,
)

TOP_K = 5
SOON = RetryPolicy(first_wait_seconds=0.001)
SAMPLES = samples_of(student_tokenizer())[:6]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TwoModels:
    return write_models(tmp_path_factory.mktemp("models"))


def served(models: TwoModels, **changes: Any) -> KnowledgeModel:
    return KnowledgeModel(load_model(models.student), student_tokenizer(), **changes)


def client(server: TeacherServer, models: TwoModels, **changes: Any) -> PromptScores:
    settings: dict[str, Any] = {
        "model": "big",
        "top_k": TOP_K,
        "vocabulary": read_vocabulary(models.student),
    } | changes
    return PromptScores(server.url, **settings, retries=SOON)


def ask(scores: PromptScores, folder: Path, requests: int = 3) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return cache_answers(scores, SAMPLES, requests, folder, lambda *_: None)


@pytest.mark.parametrize("form", ["vllm", "echo with ids"])
def test_the_answers_are_the_models_own_most_likely_tokens(
    models: TwoModels, tmp_path: Path, form: Form
) -> None:
    knowledge = served(models, form=form)
    with teacher_server(knowledge) as server:
        summary = ask(client(server, models), tmp_path / "cache")
    assert summary["tokens"] == sum(sample.counted_tokens for sample in SAMPLES)
    answers = read_answers(tmp_path / "cache", SAMPLES)
    for index, sample in enumerate(SAMPLES):
        with torch.inference_mode():
            logits = knowledge.model(input_ids=torch.tensor([sample.tokens])).logits[0]
        best = logits.log_softmax(-1)[sample.first : -1].topk(TOP_K)
        assert torch.equal(answers.of(index).tokens, best.indices)
        torch.testing.assert_close(answers.of(index).log_probabilities, best.values, rtol=1e-4, atol=1e-5)


def test_texts_in_place_of_ids_are_found_where_one_token_has_them(models: TwoModels, tmp_path: Path) -> None:
    with teacher_server(served(models, form="echo with texts")) as server:
        ask(client(server, models), tmp_path / "texts")
    answers = read_answers(tmp_path / "texts", SAMPLES).of(0)
    found = answers.tokens >= 0
    assert bool(found.any())
    with torch.inference_mode():
        logits = load_model(models.student)(input_ids=torch.tensor([SAMPLES[0].tokens])).logits[0]
    own = logits.log_softmax(-1)[SAMPLES[0].first : -1].gather(1, answers.tokens.clamp(min=0))
    torch.testing.assert_close(answers.log_probabilities[found], own[found], rtol=1e-4, atol=1e-5)


def test_no_more_requests_are_under_way_than_the_recipe_allows(models: TwoModels, tmp_path: Path) -> None:
    knowledge = served(models)
    with teacher_server(knowledge) as server:
        ask(client(server, models), tmp_path / "cache", requests=2)
    assert knowledge.most_at_once <= 2
    assert len(server.bodies) == len(SAMPLES)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    models: TwoModels, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("edgewright_builder.model_server.retries.asyncio.sleep", sleep)
    refusals = itertools.chain([Reply(status, (b"",), 0, {"Retry-After": "7"})] * 2, itertools.repeat(None))
    with teacher_server(served(models, before=lambda _: next(refusals))) as server:
        ask(client(server, models), tmp_path / "cache", requests=1)
    assert len(server.bodies) == len(SAMPLES) + 2
    assert [wait for wait in waits if wait] == [7.0, 7.0]


def test_a_server_that_goes_away_is_asked_only_for_what_is_missing(models: TwoModels, tmp_path: Path) -> None:
    answered = itertools.count()

    def gone_after_three(_: dict[str, Any]) -> Reply | None:
        return None if next(answered) < 3 else Reply(503, (b"",), 0)

    with (
        teacher_server(served(models, before=gone_after_three)) as server,
        pytest.raises(OutsideError, match=r"failed 6 times, the last time with HTTP 503.*--resume"),
    ):
        ask(client(server, models), tmp_path / "cut", requests=1)
    with teacher_server(served(models)) as server:
        ask(client(server, models), tmp_path / "cut", requests=1)
        assert len(server.bodies) == len(SAMPLES) - 3
        ask(client(server, models), tmp_path / "whole")
    for name in ("tokens.bin", "log_probabilities.bin"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def other_text(body: dict[str, Any]) -> Reply:
    places = [None, *({str(t): {"logprob": -0.1, "decoded_token": "zebra"}} for t in body["prompt"][1:])]
    return json_reply({"model": "big", "choices": [{"prompt_logprobs": places}]})


def other_ids(body: dict[str, Any]) -> Reply:
    places = [None, *({str(t + 1): {"logprob": -0.1}} for t in body["prompt"][1:])]
    return json_reply({"model": "big", "choices": [{"prompt_logprobs": places}]})


def fewer_tokens(body: dict[str, Any]) -> Reply:
    return json_reply({"model": "big", "choices": [{"prompt_logprobs": [None, {"5": {"logprob": -0.1}}]}]})


def too_likely(body: dict[str, Any]) -> Reply:
    named = {str(i): {"logprob": -0.1} for i in range(300, 300 + TOP_K)}
    places = [None, *({str(t): {"logprob": -0.1}, **named} for t in body["prompt"][1:])]
    return json_reply({"model": "big", "choices": [{"prompt_logprobs": places}]})


def not_a_number(value: float) -> Callable[[dict[str, Any]], Reply]:
    def answer(body: dict[str, Any]) -> Reply:
        named = {str(i): {"logprob": value} for i in range(300, 300 + TOP_K)}
        places = [None, *({str(t): {"logprob": -0.1}, **named} for t in body["prompt"][1:])]
        return json_reply({"model": "big", "choices": [{"prompt_logprobs": places}]})

    return answer


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"before": not_a_number(math.nan)}, r"that are none, above 0 or not a number"),
        ({"before": not_a_number(1e6)}, r"that are none, above 0 or not a number"),
        ({"form": "none"}, r"gives no log-probabilities of prompt tokens.*--max-logprobs 5"),
        ({"fewer": 2}, r"[34] of the 5 asked for at a token.*lower `teachers.knowledge.top_k`"),
        ({"name": "small"}, r"answered as 'small' and was asked as 'big'"),
        ({"before": other_text}, r"as 'zebra': its tokenizer is not the published one"),
        ({"before": other_ids}, r"its tokenizer is not the published one"),
        ({"before": fewer_tokens}, r"reads 2 tokens where \d+ were sent"),
        ({"before": too_likely}, r"add up to more than 1"),
        ({"before": lambda _: Reply(200, (b"<html>",), 6)}, r"no JSON object"),
        ({"before": lambda _: Reply(401, (b"no",), 2)}, r"teachers.knowledge.api_key_env"),
        ({"before": lambda _: Reply(404, (b"no",), 2)}, r"the part before /completions"),
    ],
)
def test_a_server_that_can_not_teach_is_refused_in_a_sentence(
    models: TwoModels, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with (
        teacher_server(served(models, **changes)) as server,
        pytest.raises(InputError, match=sentence) as refusal,
    ):
        ask(client(server, models), tmp_path / "cache", requests=1)
    assert "\n" not in str(refusal.value)


def test_numbers_that_are_no_tokens_are_part_of_the_tail(models: TwoModels, tmp_path: Path) -> None:
    def numbered(body: dict[str, Any]) -> Reply:
        named = {str(10**12 + i): {"logprob": -1.0 - i} for i in range(TOP_K)}
        places = [None, *({str(t): {"logprob": -0.9}, **named} for t in body["prompt"][1:])]
        return json_reply({"model": "big", "choices": [{"prompt_logprobs": places}]})

    with teacher_server(served(models, before=numbered)) as server:
        ask(client(server, models), tmp_path / "cache")
    tokens = np.fromfile(tmp_path / "cache" / "tokens.bin", np.int32).reshape(-1, TOP_K)
    assert (tokens[:, 0] >= 0).all()
    assert (tokens[:, 1:] == -1).all()


def test_a_server_that_never_ends_its_answer_is_given_up(models: TwoModels) -> None:
    def dripping(_: dict[str, Any]) -> Reply:
        return Reply(200, (time.sleep(0.02) or b" " for _ in range(1000)))  # type: ignore[func-returns-value]

    once = RetryPolicy(attempts=1)
    with teacher_server(served(models, before=dripping)) as server:
        slow = PromptScores(server.url, "big", TOP_K, read_vocabulary(models.student), None, 0.3, once)
        with pytest.raises(OutsideError, match=r"no whole answer within 0\.3 s"):
            slow.check()


def test_an_answer_beyond_any_size_is_given_up(models: TwoModels) -> None:
    flood = Reply(200, (b" " * 2**20,) * 64, 64 * 2**20)
    with (
        teacher_server(served(models, before=lambda _: flood)) as server,
        pytest.raises(OutsideError, match=r"sent more than 1\.0 MiB for one answer"),
    ):
        client(server, models).check()


def test_a_short_text_finds_out_before_anything_is_written(models: TwoModels) -> None:
    with teacher_server(served(models)) as server:
        client(server, models).check()
        assert len(server.bodies) == 1
    with teacher_server(served(models, form="none")) as server, pytest.raises(InputError):
        client(server, models).check()
    with pytest.raises(OutsideError, match="failed 6 times"):
        PromptScores(
            "http://127.0.0.1:9/v1", "big", TOP_K, read_vocabulary(models.student), retries=SOON
        ).check()


def test_a_tokenizer_of_another_model_is_noticed(models: TwoModels, tmp_path: Path) -> None:
    knowledge = KnowledgeModel(load_model(models.teacher), teacher_tokenizer())
    with (
        teacher_server(knowledge) as server,
        pytest.raises(EdgewrightError, match="not the published one"),
    ):
        ask(client(server, models), tmp_path / "cache")
