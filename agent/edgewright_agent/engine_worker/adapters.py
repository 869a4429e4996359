"""A LoRA adapter on a loaded ONNX Runtime GenAI model: one at a time, switched without touching the model.

A generation keeps the adapter it began with: its Generator holds it, and the last one that does frees it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from edgewright_agent.engine_worker.backend import InvalidRequestError

NAME = "adapter"  # every adapter has a container of its own, so that one name is enough


class AdapterSwitch:
    """Which adapter the next generations use."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._active: Any = None

    def use(self, file: Path | None) -> None:
        """Loads `file` (.onnx_adapter) for what begins from now on; None is the model alone.

        Raises InvalidRequestError if the file is no adapter of this model; then nothing has changed.
        """
        self._active = None if file is None else self._loaded(file)

    def apply(self, generator: Any) -> None:
        """Gives a new generator the adapter."""
        if self._active is not None:
            generator.set_active_adapter(self._active, NAME)

    def _loaded(self, file: Path) -> Any:
        adapters = og.Adapters(self._model)
        try:
            adapters.load(str(file), NAME)
            self._try_one_token(adapters)  # names and shapes are only compared when the model runs
        except Exception as error:
            message = f"{file.name} is no adapter of this model: {_brief(error)}."
            raise InvalidRequestError(message, "adapter_mismatch") from error
        return adapters

    def _try_one_token(self, adapters: Any) -> None:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=2, do_sample=False)
        generator = og.Generator(self._model, params)
        generator.set_active_adapter(adapters, NAME)
        generator.append_tokens(np.array([0], dtype=np.int32))


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
