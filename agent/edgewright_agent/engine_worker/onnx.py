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

from edgewright_agent.engine_worker.backend import Sampling, TokenScores
from edgewright_agent.engine_worker.sampling import draw
from edgewright_agent.engine_worker.tokenizer import ModelText

# The model gives logits for every position it is fed. 16 MiB of them at once bounds the peak and costs no
# speed: SmolLM2-135M peaks at 240 MiB in slices of 64 tokens and at 351 MiB in one of 512.
LOGITS_BYTES_MAX = 16 * 1024 * 1024


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
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)

    def generate(self, prompt: Sequence[int], max_tokens: int, sampling: Sampling) -> Iterator[int | None]:
        """Tokens drawn one by one; None after each slice of the prompt."""
        generator, rng = self._generator(len(prompt) + max_tokens), np.random.default_rng(sampling.seed)
        for _ in self._feed(generator, prompt):
            yield None
        for count in range(1, max_tokens + 1):
            token = draw(generator.get_logits()[0, -1], sampling, rng)
            yield token
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
        return og.Generator(self._model, params)

    def _feed(self, generator: Any, tokens: Sequence[int]) -> Iterator[int]:
        """Run the model over `tokens`, slice by slice; yields how many tokens each slice had."""
        for start in range(0, len(tokens), self._slice_tokens):
            part = np.array(tokens[start : start + self._slice_tokens], dtype=np.int32)
            generator.append_tokens(part)
            yield len(part)


def _score_rows(rows: NDArray[np.float32], targets: Sequence[int]) -> tuple[float, bool]:
    """Sum of log-softmax(rows[i])[targets[i]], and whether each target is its row's maximum."""
    if not targets:
        return 0.0, True
    highest = rows.max(axis=-1)
    chosen = rows[np.arange(len(targets)), list(targets)]
    normaliser = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=-1))
    return float((chosen - normaliser).sum(dtype=np.float64)), bool((chosen >= highest).all())
