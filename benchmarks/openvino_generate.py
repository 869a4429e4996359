"""OpenVINO GenAI as a peer of `serving_llama.py`: `openvino_generate.py GGUF THREADS`, by a Python that has it.

Reads {"prompt": …, "tokens": …} per line and answers with the figures of one greedy generation.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import openvino_genai as ov


def main() -> None:
    """Answers until the input ends."""
    pipeline = ov.LLMPipeline(sys.argv[1], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(generate(pipeline, request["prompt"], request["tokens"])), flush=True)


def generate(pipeline: Any, prompt: str, tokens: int) -> dict[str, float]:
    """Its own loop with its own greedy sampler; the first token's time is its own figure."""
    config = ov.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
    config.apply_chat_template = False
    begin = time.perf_counter()
    figures = pipeline.generate([prompt], config).perf_metrics
    end = time.perf_counter()
    first = figures.get_ttft().mean / 1000
    return {
        "prompt_tokens": figures.get_num_input_tokens(), "tokens": figures.get_num_generated_tokens(),
        "first_seconds": first, "decode_seconds": end - begin - first,
    }  # fmt: skip


if __name__ == "__main__":
    main()
