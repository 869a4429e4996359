"""The exported graph in ONNX Runtime, run on rows of one pool of KV cache.

The graph takes past keys and values as inputs and gives them, longer, as outputs; with both bound to the same memory
GroupQueryAttention writes the new ones in place. A row is that memory's part for one sequence, with a shape of its own
(heads, width, head size), so that neighbours of one width are a batch without copying anything. How many tokens each
row of a batch holds follows from its attention mask, which is as wide as the row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgewright_agent.engine_worker.backend import Logits, Place

BINDINGS_KEPT = 16
# What keeps the runtime from holding memory it does not need; benchmarks/engine_memory.py measures each.
LEAN_SESSION = {
    # A tied embedding is a Reshape of the head's tensor, which folding would make a second tensor in memory.
    "optimization.constant_folding_max_output_size_in_bytes": str(1024 * 1024),
    # The arena keeps what the longest request so far needed; malloc gives large blocks back (see launch.py).
    "enable_cpu_mem_arena": False,
}
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class _Bound:
    """Inputs and outputs that stay the same for a batch of rows, and the mask that goes with them."""

    binding: Any
    mask: NDArray[np.int64]  # (rows, width)


class Graph:
    """One session and its KV cache of `pool_tokens`."""

    def __init__(
        self, engine_folder: Path, settings: Mapping[str, Any], threads: int, pool_tokens: int
    ) -> None:
        decoder = settings["decoder"]
        self._inputs, self._outputs = decoder["inputs"], decoder["outputs"]
        self._vocab_size = int(settings["vocab_size"])
        self._heads, self._head_size = int(decoder["num_key_value_heads"]), int(decoder["head_size"])
        self._session = onnxruntime.InferenceSession(
            str(engine_folder / decoder["filename"]),
            session_options(threads),
            providers=["CPUExecutionProvider"],
        )
        types = {value.name: value.type for value in self._session.get_inputs()}
        self._positions = types.keys() & {"position_ids"}
        self._caches = {
            (past % layer, present % layer): np.empty(
                pool_tokens * self._heads * self._head_size, _DTYPES[types[past % layer]]
            )
            for layer in range(int(decoder["num_hidden_layers"]))
            for past, present in (
                (self._inputs["past_key_names"], self._outputs["present_key_names"]),
                (self._inputs["past_value_names"], self._outputs["present_value_names"]),
            )
        }
        self._bound: OrderedDict[Any, _Bound] = OrderedDict()

    @property
    def optional_inputs(self) -> dict[str, Any]:
        """By name, what the graph takes beside tokens and cache: the places of adapters."""
        return {value.name: value for value in self._session.get_overridable_initializers()}

    def run(
        self, places: Sequence[Place], pasts: Sequence[int], tokens: NDArray[np.int64], adapter: Any
    ) -> Logits:
        """Puts tokens (rows, n) after the first `pasts` of each place; logits (rows, n, vocabulary).

        The places are neighbours in order. `adapter` maps optional inputs to values, or is None.
        """
        bound = self._bind(places, adapter)
        rows, count = tokens.shape
        bound.mask[:] = 0
        for row, past in zip(bound.mask, pasts, strict=True):
            row[: past + count] = 1
        logits = np.empty((rows, count, self._vocab_size), np.float32)
        fed = [(self._inputs["input_ids"], tokens)]
        if self._positions:
            fed.append(("position_ids", np.array(pasts)[:, None] + np.arange(count)))
        for name, value in fed:
            bound.binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        bound.binding.bind_output(
            self._outputs["logits"], "cpu", 0, np.float32, logits.shape, logits.ctypes.data
        )
        self._session.run_with_iobinding(bound.binding)
        return logits

    def copy(self, source: Place, target: Place, tokens: int) -> None:
        """The first `tokens` of one row to another, which may overlap it."""
        for cache in self._caches.values():
            self._rows(cache, target)[:, :tokens] = self._rows(cache, source)[:, :tokens].copy()

    def _rows(self, cache: NDArray[Any], place: Place) -> NDArray[Any]:
        """(heads, width, head size) of one row."""
        per_token = self._heads * self._head_size
        part = cache[place.start_tokens * per_token : place.end_tokens * per_token]
        return part.reshape(self._heads, place.width_tokens, self._head_size)

    def _bind(self, places: Sequence[Place], adapter: Any) -> _Bound:
        key = (places[0], len(places), id(adapter))
        bound = self._bound.pop(key, None) or self._new_binding(places, adapter)
        self._bound[key] = bound
        if len(self._bound) > BINDINGS_KEPT:
            self._bound.popitem(last=False)
        return bound

    def _new_binding(self, places: Sequence[Place], adapter: Any) -> _Bound:
        binding, first = self._session.io_binding(), places[0]
        shape = (len(places), self._heads, first.width_tokens, self._head_size)
        for (past, present), cache in self._caches.items():
            pointer = self._rows(cache, first).ctypes.data
            binding.bind_input(past, "cpu", 0, cache.dtype, shape, pointer)
            binding.bind_output(present, "cpu", 0, cache.dtype, shape, pointer)
        mask = np.zeros((len(places), first.width_tokens), np.int64)
        name = self._inputs["attention_mask"]
        binding.bind_input(name, "cpu", 0, mask.dtype, mask.shape, mask.ctypes.data)
        for name, value in (adapter.tensors if adapter is not None else {}).items():
            binding.bind_ortvalue_input(name, value)
        return _Bound(binding, mask)


def session_options(threads: int) -> Any:
    """How the graph is run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # adapters' places are optional inputs, and each would be warned of
    for name, value in LEAN_SESSION.items():
        if hasattr(options, name):
            setattr(options, name, value)
        else:
            options.add_session_config_entry(name, value)
    return options
