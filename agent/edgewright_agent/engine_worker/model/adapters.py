"""LoRA adapters of a loaded graph: read from their file, compared with the graph, and bound to each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from edgewright_agent.engine_worker.model.backend import InvalidRequestError


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """Values for optional inputs of the graph. Each load is another adapter: they share no cached prompt."""

    tensors: Mapping[str, Any]


def load_adapter(file: Path, optional_inputs: Mapping[str, Any]) -> LoadedAdapter:
    """Returns the adapter in `file` (.onnx_adapter); raises InvalidRequestError if it is none of this graph."""
    try:
        tensors = onnxruntime.AdapterFormat.read_adapter(str(file)).get_parameters()
        _check(tensors, optional_inputs)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        message = f"{file.name} is no adapter of this model: {reason}."
        raise InvalidRequestError(message, "adapter_mismatch") from error
    return LoadedAdapter(tensors)


def _check(tensors: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raises ValueError for a tensor that the graph does not take, or takes in another shape. Ranks have names."""
    ranks: dict[str, int] = {}
    for name, tensor in tensors.items():
        if name not in inputs:
            raise ValueError(f"the model has no place for {name}")
        shape, expected = tuple(tensor.shape()), tuple(inputs[name].shape)
        known = tuple(ranks.setdefault(size, got) if isinstance(size, str) else size
                      for size, got in zip(expected, shape, strict=False))  # fmt: skip
        if known != shape or len(expected) != len(shape) or tensor.data_type() != inputs[name].type:
            raise ValueError(
                f"{name} is {tensor.data_type()} of shape {shape}, the model takes {inputs[name].type} of {expected}"
            )
