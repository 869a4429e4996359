"""The logits of an exported ONNX graph at every position, for comparisons that accuracies are too coarse for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


def open_logits(engine: Path) -> Callable[[Sequence[int]], Tensor]:
    """Returns a function from token ids to logits (tokens, vocabulary), which the graph in `engine` computes."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # adapters' slots are optional inputs, and each would be warned of
    session = onnxruntime.InferenceSession(
        str(engine / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    own = {"input_ids", "attention_mask", "position_ids"}
    head_size = json.loads((engine / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"][
        "head_size"
    ]
    sizes = {"batch_size": 1, "kv_cache_dim": head_size}  # other named dimensions: no past, no adapter
    empty = {each.name: _empty(each, sizes) for each in session.get_inputs() if each.name not in own}
    takes_positions = "position_ids" in {each.name for each in session.get_inputs()}

    def logits_of(tokens: Sequence[int]) -> Tensor:
        ids = np.asarray([tokens], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), **empty}
        if takes_positions:
            inputs["position_ids"] = np.arange(len(tokens), dtype=np.int64)[None]
        (logits,) = session.run(["logits"], inputs)
        return torch.from_numpy(logits[0].astype(np.float32))

    return logits_of


def _empty(graph_input: Any, sizes: dict[str, int]) -> Any:
    """Returns what an input holds without a past and without an adapter: dimensions that `sizes` lacks are 0."""
    shape = [each if isinstance(each, int) else sizes.get(each, 0) for each in graph_input.shape]
    return np.zeros(shape, dtype=ELEMENT_TYPES[graph_input.type])
