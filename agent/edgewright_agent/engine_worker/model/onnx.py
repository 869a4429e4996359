"""ONNX Runtime as a Backend, for models exported by `onnxruntime_genai.models.builder`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright_agent.engine_worker.model.adapters import LoadedAdapter, load_adapter
from edgewright_agent.engine_worker.model.backend import CachePlace, Logits, layout_of
from edgewright_agent.engine_worker.model.graph import Graph, window_tokens
from edgewright_agent.engine_worker.model.tokenizer import ModelText
from edgewright_agent.engine_worker.model.weights import (
    find_mapped_weights,
    restart_high_water_mark,
    trim_heap,
)

# The model computes logits for every position that it is fed. Feeding it so many positions that they take 16 MiB bounds
# the peak and costs no speed: SmolLM2-135M peaks at 240 MiB in slices of 64 tokens and at 351 MiB in one of 512.
LOGITS_BYTES_MAX = 16 * 1024 * 1024
WEIGHTS_FILE = "model.onnx.data"
STEPS_PER_RELEASE = 16  # looking up one token's embedding may bring 2 MiB of the file's pages back


class OnnxBackend:
    """A loaded model and a KV cache for `concurrency` whole contexts."""

    def __init__(
        self,
        engine_folder: Path,
        tokenizer_folder: Path,
        context_tokens: int,
        threads: int,
        concurrency: int = 1,
    ) -> None:
        self.text = ModelText(tokenizer_folder)
        settings = json.loads((engine_folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        self.context_tokens = min(context_tokens, int(settings["context_length"]))
        decoder = settings["decoder"]
        self.layout = layout_of(self.context_tokens, window_tokens(engine_folder / decoder["filename"]))
        self.pool_tokens = self.layout.pool_tokens(concurrency)
        eos = settings["eos_token_id"]
        self.eos_ids = frozenset(eos if isinstance(eos, list) else [eos])
        self.vocab_size = int(settings["vocab_size"])
        self.slice_tokens = max(3, LOGITS_BYTES_MAX // (4 * self.vocab_size))
        self.slice_bytes = self._slice_bytes(decoder)
        self.adapter: LoadedAdapter | None = None
        self._graph = Graph(
            engine_folder, settings, threads, self.pool_tokens, self.layout.shares * concurrency
        )
        self._steps = 0
        self._weights = find_mapped_weights(engine_folder / WEIGHTS_FILE)
        self._weights.release()
        trim_heap()
        restart_high_water_mark()

    def _slice_bytes(self, decoder: Mapping[str, Any]) -> int:
        """Returns the logits and the widest activations of one slice, as the plan counts them (`fit/memory.py`)."""
        tokens = min(self.slice_tokens, self.context_tokens)
        attention = int(decoder.get("num_attention_heads", 0)) * self.context_tokens
        return 4 * tokens * (self.vocab_size + attention + 2 * int(decoder.get("hidden_size", 0)))

    def use_adapter(self, file: Path | None) -> None:
        """Sets the adapter from the next request on; those under way keep theirs."""
        self.adapter = None if file is None else load_adapter(file, self._graph.optional_inputs)

    def read(
        self, place: CachePlace, past: int, tokens: Sequence[int], adapter: LoadedAdapter | None
    ) -> Logits:
        """See `Backend`."""
        logits = self._graph.run([place], [past], np.array([tokens], np.int64), adapter)
        self._weights.release()
        rows: Logits = logits[0]
        return rows

    def step(
        self,
        places: Sequence[CachePlace],
        pasts: Sequence[int],
        tokens: Sequence[int],
        adapter: LoadedAdapter | None,
    ) -> Logits:
        """See `Backend`."""
        logits = self._graph.run(places, pasts, np.array(tokens, np.int64)[:, None], adapter)
        self._steps += 1
        if self._steps % STEPS_PER_RELEASE == 0:
            self._weights.release()
        rows: Logits = logits[:, 0]
        return rows

    def copy(self, source: CachePlace, target: CachePlace, tokens: int) -> None:
        """See `Backend`."""
        self._graph.copy(source, target, tokens)
