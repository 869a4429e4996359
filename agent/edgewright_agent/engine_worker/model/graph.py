"""The exported graph in ONNX Runtime, run on rows of one pool of KV cache.

The graph takes past keys and values as inputs and gives them, longer, as outputs. With both bound to the same memory
GroupQueryAttention writes the new ones in place. A row is the part of that memory for one sequence, with a shape of its
own (heads, width, head size), so that neighbours of one width are a batch without copying anything. How many tokens
each row of a batch holds follows from its attention mask, which is as wide as the row.
"""

from __future__ import annotations

import mmap
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgewright_agent.engine_worker.model.backend import CachePlace, Logits

BINDINGS_KEPT = 8
FOLDING_IS_BOUNDED = (1, 31)  # the first release known to bound it; none between 1.23 and this one was tried
# These keep the runtime from holding memory it does not need; benchmarks/engine_memory.py measures each.
LEAN_SESSION = {
    # A tied embedding is a Reshape of the head's tensor; folding would make a second tensor of it.
    "optimization.constant_folding_max_output_size_in_bytes": str(1024 * 1024),
    # The arena keeps what the longest request so far needed; malloc gives large blocks back (see `LEAN_MALLOC` in the
    # agent's engines/worker_launch.py, which starts this process).
    "enable_cpu_mem_arena": False,
    # Memory patterns stay on: masks as wide as the row repeat their shapes, so that a step allocates one block instead
    # of a thousand. Without them a 135M model's step takes a sixth longer, and a 2048-token context 10 MiB less.
}
# Threads spin for work while the model runs, and not between two runs, when the agent needs the cores. That is as fast
# as spinning all the time; without spinning a token takes a third longer (benchmarks/engine_threads.py).
SPINNING = {"session.force_spinning_stop": "1"}
# The attribute of GroupQueryAttention as protobuf writes it: its name, then field 3, a varint.
_WINDOW = re.compile(rb"local_window_size\x18([\x80-\xff]*[\x00-\x7f])")
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass
class _Bound:
    """The inputs and outputs that stay the same for a batch of rows, and the mask that belongs to them."""

    binding: Any
    mask: NDArray[np.int64]  # (rows, width)
    lengths: list[int]  # ones at the beginning of each row of the mask
    step: NDArray[np.int64] | None = None  # (rows, 1): the tokens of one step, while they are bound

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Sets how many ones each row of the mask begins with."""
        for index, (old, new) in enumerate(zip(self.lengths, lengths, strict=True)):
            self.mask[index, min(old, new) : max(old, new)] = new > old
        self.lengths[:] = lengths


class Graph:
    """One session and its KV cache of `pool_tokens`, for batches of at most `rows_max`."""

    def __init__(
        self,
        engine_folder: Path,
        settings: Mapping[str, Any],
        threads: int,
        pool_tokens: int,
        rows_max: int,
    ) -> None:
        decoder = settings["decoder"]
        self._inputs, self._outputs = decoder["inputs"], decoder["outputs"]
        self._vocab_size = int(settings["vocab_size"])
        self._heads, self._head_size = int(decoder["num_key_value_heads"]), int(decoder["head_size"])
        self._session = onnxruntime.InferenceSession(
            str(engine_folder / decoder["filename"]),
            session_options(threads),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=disabled_optimizers(),
        )
        types = {value.name: value.type for value in self._session.get_inputs()}
        self._positions = "position_ids" in types
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
        # One buffer for every step. The kernel holds no more of it than the largest batch so far has touched.
        self._step_logits = np.empty((rows_max, 1, self._vocab_size), np.float32)
        self._bound: OrderedDict[Any, _Bound] = OrderedDict()

    @property
    def optional_inputs(self) -> dict[str, Any]:
        """By name, what the graph takes beside tokens and cache: the inputs of adapters."""
        return {value.name: value for value in self._session.get_overridable_initializers()}

    def run(
        self, places: Sequence[CachePlace], pasts: Sequence[int], tokens: NDArray[np.int64], adapter: Any
    ) -> Logits:
        """Puts tokens (rows, n) after the first `pasts` of each place; returns logits (rows, n, vocabulary).

        The places are neighbours in order. `adapter` maps optional inputs to values, or is None.
        """
        bound = self._bind(places, adapter)
        bound.set_lengths([past + tokens.shape[1] for past in pasts])
        if tokens.shape[1] == 1:
            return self._step(bound, pasts, tokens)
        logits = np.empty((*tokens.shape, self._vocab_size), np.float32)
        bound.step = None
        self._bind_sequence(bound, tokens, logits)
        return self._run(bound, pasts, tokens, logits)

    def _step(self, bound: _Bound, pasts: Sequence[int], tokens: NDArray[np.int64]) -> Logits:
        """Does what `run` does, for one token per row; its logits are overwritten by the next step."""
        logits = self._step_logits[: len(tokens)]
        if bound.step is None:
            bound.step = np.empty_like(tokens)
            self._bind_sequence(bound, bound.step, logits)
        bound.step[:] = tokens
        return self._run(bound, pasts, bound.step, logits)

    def _bind_sequence(self, bound: _Bound, tokens: NDArray[np.int64], logits: Logits) -> None:
        _bind_input(bound.binding, self._inputs["input_ids"], tokens)
        name, pointer = self._outputs["logits"], logits.ctypes.data
        bound.binding.bind_output(name, "cpu", 0, np.float32, logits.shape, pointer)

    def _run(self, bound: _Bound, pasts: Sequence[int], tokens: NDArray[np.int64], logits: Logits) -> Logits:
        if self._positions:
            positions = np.array(pasts)[:, None] + np.arange(tokens.shape[1])
            _bind_input(bound.binding, "position_ids", positions)
        self._session.run_with_iobinding(bound.binding)
        return logits

    def copy(self, source: CachePlace, target: CachePlace, tokens: int) -> None:
        """Copies the first `tokens` of one row to another, which may overlap it."""
        for cache in self._caches.values():
            self._rows(cache, target)[:, :tokens] = self._rows(cache, source)[:, :tokens].copy()

    def _rows(self, cache: NDArray[Any], place: CachePlace) -> NDArray[Any]:
        """Returns one row of a cache, (heads, width, head size)."""
        per_token = self._heads * self._head_size
        part = cache[place.start_tokens * per_token : place.end_tokens * per_token]
        return part.reshape(self._heads, place.width_tokens, self._head_size)

    def _bind(self, places: Sequence[CachePlace], adapter: Any) -> _Bound:
        key = (places[0], len(places), adapter)
        bound = self._bound.pop(key, None) or self._new_binding(places, adapter)
        self._bound[key] = bound
        if len(self._bound) > BINDINGS_KEPT:
            self._bound.popitem(last=False)
        return bound

    def _new_binding(self, places: Sequence[CachePlace], adapter: Any) -> _Bound:
        binding, first = self._session.io_binding(), places[0]
        shape = (len(places), self._heads, first.width_tokens, self._head_size)
        for (past, present), cache in self._caches.items():
            pointer = self._rows(cache, first).ctypes.data
            binding.bind_input(past, "cpu", 0, cache.dtype, shape, pointer)
            binding.bind_output(present, "cpu", 0, cache.dtype, shape, pointer)
        mask = np.zeros((len(places), first.width_tokens), np.int64)
        _bind_input(binding, self._inputs["attention_mask"], mask)
        for name, value in (adapter.tensors if adapter is not None else {}).items():
            binding.bind_ortvalue_input(name, value)
        return _Bound(binding, mask, [0] * len(places))


def window_tokens(model: Path) -> int:
    """Returns the widest attention window of the graph; 0 if it has none.

    `genai_config.json` does not say, and ONNX Runtime does not show a node's attributes.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        windows = [_signed_varint(match[1]) for match in _WINDOW.finditer(data)]
    return max(0, *windows) if windows else 0


def _signed_varint(data: bytes) -> int:
    """Returns the 64-bit integer of a protobuf varint."""
    value = sum((byte & 0x7F) << (7 * index) for index, byte in enumerate(data))
    return value - 2**64 if value >= 2**63 else value


def _bind_input(binding: Any, name: str, value: NDArray[Any]) -> None:
    """Binds `value`, which the caller keeps alive until the run is over."""
    binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)


def session_options(threads: int) -> Any:
    """Returns how the graph is run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # adapters' places are optional inputs, and each would be warned of
    for name, value in (LEAN_SESSION | SPINNING).items():
        if hasattr(options, name):
            setattr(options, name, value)
        else:
            options.add_session_config_entry(name, value)
    return options


def disabled_optimizers() -> list[str]:
    """Returns folding as a whole where the runtime can't bound it as `LEAN_SESSION` asks (1.23, for Python 3.10)."""
    release = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    return [] if release >= FOLDING_IS_BOUNDED else ["ConstantFolding"]
