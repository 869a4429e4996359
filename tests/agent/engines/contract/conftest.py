"""A release of every kind of engine: each test of this folder is tried on each of them."""

from __future__ import annotations

import pytest

from tests.agent.engines.contract.requests import EDGE_LLM
from tests.support.engine_releases import Release, asked_release


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        "onnxruntime-genai",
        "llama.cpp",
        EDGE_LLM,
        pytest.param("vllm", marks=pytest.mark.vllm),
    ],
)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return asked_release(request, tmp_path_factory, token_seconds=0.0005)
