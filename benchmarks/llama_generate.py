"""llama.cpp as a peer of `serving.py`: `llama_generate.py GGUF THREADS`, in an interpreter that has `llama-cpp-python`.

Reads {"prompt": …, "tokens": …} per line and answers with the figures of one greedy generation.
"""

from __future__ import annotations

import json
import sys
import time

from llama_cpp import Llama


def main() -> None:
    """Answers until the input ends."""
    threads = int(sys.argv[2])
    model = Llama(sys.argv[1], n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(generate(model, request["prompt"], request["tokens"])), flush=True)


def generate(model: Llama, prompt: str, tokens: int) -> dict[str, float]:
    """Its own loop with its own greedy sampler."""
    ids = model.tokenize(prompt.encode(), add_bos=False)
    model.reset()
    begin = time.perf_counter()
    stream = model.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True)
    next(stream)
    first = time.perf_counter()
    for _ in range(tokens - 1):
        next(stream)
    last = time.perf_counter()
    return {
        "prompt_tokens": len(ids), "tokens": tokens, "first_seconds": first - begin, "decode_seconds": last - first,
    }  # fmt: skip


if __name__ == "__main__":
    main()
