"""ONNX Runtime GenAI as a Backend.

Each request has its own Generator, whose KV cache is as long as the request and no longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
from numpy.typing import NDArray

from edgewright_agent.engine_worker.adapters import AdapterSwitch
from edgewright_agent.engine_worker.backend import Sampling, TokenScores
from edgewright_agent.engine_worker.sampling import draw
from edgewright_agent.engine_worker.tokenizer import ModelText
from edgewright_agent.engine_worker.weights import find_mapped_weights, restart_high_water_mark, trim_heap

# The model gives logits for every position it is fed. 16 MiB of them at once bounds the peak and costs no
# speed: SmolLM2-135M peaks at 240 MiB in slices of 64 tokens and at 351 MiB in one of 512.
LOGITS_BYTES_MAX = 16 * 1024 * 1024
WEIGHTS_FILE = "model.onnx.data"
TOKENS_PER_RELEASE = 16  # looking up one token's embedding may bring 2 MiB of the file's pages back
# What keeps the runtime from holding memory it does not need; benchmarks/engine_memory.py measures each.
LEAN_SESSION = {
    # A tied embedding is a Reshape of the head's tensor, which folding would make a second tensor in memory.
    "optimization.constant_folding_max_output_size_in_bytes": str(1024 * 1024),
    # The arena keeps what the longest request so far needed; malloc gives large blocks back (see launch.py).
    "enable_cpu_mem_arena": False,
}


class OnnxBackend:
    """A model exported by `onnxruntime_genai.models.builder`."""

    def __init__(
        self, engine_folder: Path, tokenizer_folder: Path, context_tokens: int, threads: int
    ) -> None:
        self.text = ModelText(tokenizer_folder)
        settings = json.loads((engine_folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        self.context_tokens = min(context_tokens, int(settings["context_length"]))
        eos = settings["eos_token_id"]
        self.eos_ids = frozenset(eos if isinstance(eos, list) else [eos])
        self.vocab_size = int(settings["vocab_size"])
        self._slice_tokens = max(1, LOGITS_BYTES_MAX // (4 * self.vocab_size))
        config = og.Config(str(engine_folder))
        options = {"intra_op_num_threads": threads} | LEAN_SESSION
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)
        self._adapters = AdapterSwitch(self._model)
        self._weights = find_mapped_weights(engine_folder / WEIGHTS_FILE)
        self._weights.release()
        trim_heap()
        restart_high_water_mark()

    def use_adapter(self, file: Path | None) -> None:
        """From the next generation on."""
        self._adapters.use(file)

    def generate(self, prompt: Sequence[int], max_tokens: int, sampling: Sampling) -> Iterator[int | None]:
        """Tokens drawn one by one; None after each slice of the prompt."""
        generator, rng = self._generator(len(prompt) + max_tokens), np.random.default_rng(sampling.seed)
        for _ in self._feed(generator, prompt):
            yield None
        for count in range(1, max_tokens + 1):
            token = draw(generator.get_logits()[0, -1], sampling, rng)
            yield token
            if count % TOKENS_PER_RELEASE == 0:
                self._weights.release()
            if count < max_tokens:
                generator.append_tokens(np.array([token], dtype=np.int32))

    def score(
        self, context: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> Iterator[TokenScores | None]:
        """The context is fed once; each continuation after it, and then taken back."""
        longest = max(len(continuation) for continuation in continuations)
        generator = self._generator(len(context) + longest)
        for _ in self._feed(generator, context):
            yield None
        first_row = generator.get_logits()[0, -1:].copy()  # predicts every continuation's first token
        for continuation in continuations:
            total, greedy = _score_rows(first_row, continuation[:1])
            done = 1
            for count in self._feed(generator, continuation[:-1]):
                rows = generator.get_output("logits")[0]
                more, still_greedy = _score_rows(rows, continuation[done : done + count])
                total, greedy, done = total + more, greedy and still_greedy, done + count
                yield None
            generator.rewind_to(len(context))
            yield TokenScores(total, len(continuation), greedy)

    def _generator(self, sequence_tokens: int) -> Any:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=sequence_tokens, do_sample=False)
        generator = og.Generator(self._model, params)
        self._adapters.apply(generator)
        return generator

    def _feed(self, generator: Any, tokens: Sequence[int]) -> Iterator[int]:
        """Run the model over `tokens`, slice by slice; yields how many tokens each slice had."""
        for start in range(0, len(tokens), self._slice_tokens):
            part = np.array(tokens[start : start + self._slice_tokens], dtype=np.int32)
            generator.append_tokens(part)
            self._weights.release()
            yield len(part)


def _score_rows(rows: NDArray[np.float32], targets: Sequence[int]) -> tuple[float, bool]:
    """Sum of log-softmax(rows[i])[targets[i]], and whether each target is its row's maximum."""
    if not targets:
        return 0.0, True
    highest = rows.max(axis=-1)
    chosen = rows[np.arange(len(targets)), list(targets)]
    normaliser = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=-1))
    return float((chosen - normaliser).sum(dtype=np.float64)), bool((chosen >= highest).all())
