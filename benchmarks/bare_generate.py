"""onnxruntime-genai in a loop, as a peer of `serving.py`: `bare_generate.py ENGINE_FOLDER THREADS [TOKENIZER_FILE]`.

Reads {"prompt": text or tokens, "tokens": count} per line and answers with the figures of one greedy generation.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from numpy.typing import NDArray
from tokenizers import Tokenizer


def main() -> None:
    """Answers until the input ends."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    tokenizer = Tokenizer.from_file(sys.argv[3]) if len(sys.argv) > 3 else None
    config = og.Config(str(folder))
    options = {"intra_op_num_threads": threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = og.Model(config)
    for line in sys.stdin:
        request = json.loads(line)
        tokens = request["prompt"] if tokenizer is None else tokenizer.encode(request["prompt"]).ids
        print(json.dumps(generate(model, np.array(tokens, dtype=np.int32), request["tokens"])), flush=True)


def generate(model: og.Model, prompt: NDArray[np.int32], tokens: int) -> dict[str, float]:
    """The least a greedy loop can do: feed, argmax, feed."""
    begin = time.perf_counter()
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + tokens, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(prompt)
    token = int(generator.get_logits()[0, -1].argmax())
    first = time.perf_counter()
    for _ in range(tokens - 1):
        generator.append_tokens(np.array([token], dtype=np.int32))
        token = int(generator.get_logits()[0, -1].argmax())
    last = time.perf_counter()
    return {
        "prompt_tokens": len(prompt), "tokens": tokens, "first_seconds": first - begin, "decode_seconds": last - first,
    }  # fmt: skip


if __name__ == "__main__":
    main()
