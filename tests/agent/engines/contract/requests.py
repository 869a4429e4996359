"""The requests that the promises of engines are tried with."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright_agent.engines import GenerationRequest
from tests.support.engine_releases import CONTEXT_TOKENS

PROMPT = "on the other hand"
LONG = GenerationRequest(prompt=PROMPT, max_tokens=CONTEXT_TOKENS - 20, ignore_eos=True)
ONE_TOKEN = GenerationRequest(prompt=PROMPT, max_tokens=1)
EDGE_LLM = "tensorrt-edge-llm"  # whose stand-in writes letters

# vLLM words its errors in its own way, and bounds no body: the agent's OpenAI-compatible server does.
of_our_worker = pytest.mark.parametrize("release", ["fake", "onnxruntime-genai"], indirect=True)


def sampled(**changes: Any) -> GenerationRequest:
    return GenerationRequest(
        **{"prompt": PROMPT, "max_tokens": 40, "temperature": 1.0, "seed": 7, "ignore_eos": True, **changes}
    )
