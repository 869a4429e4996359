"""What a quantized checkpoint keeps of its model's settings, whatever the library that wrote it changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.durable import write_json
from edgewright_builder.models.folder import read_config


def keep_positions(model: Path, checkpoint: Path) -> None:
    """Gives the checkpoint the `rope_parameters` of its model: GPTQModel 7.6.0 adds keys to those of Gemma 3."""
    source, written = read_config(model), read_config(checkpoint)
    if source.get("rope_parameters", {}) != written.get("rope_parameters", {}):
        write_json(checkpoint / "config.json", written | {"rope_parameters": source["rope_parameters"]})


def keep_generation(model: Path, checkpoint: Path) -> None:
    """Gives the checkpoint the generation settings of its model: GPTQModel 7.6.0 turns sampling on in them."""
    source, written = model / "generation_config.json", checkpoint / "generation_config.json"
    written.unlink(missing_ok=True)
    if source.is_file():
        written.write_bytes(source.read_bytes())


def keep_configuration(model: Path, checkpoint: Path, quantization: Mapping[str, Any]) -> None:
    """Gives the checkpoint its model's configuration, the type its floats are stored in, and `quantization`."""
    source, written = read_config(model), read_config(checkpoint)
    kept = {key: value for key, value in source.items() if key != "torch_dtype"}  # the older name of `dtype`
    stored_as = written.get("dtype") or written.get("torch_dtype")
    floats = {} if stored_as is None else {"dtype": stored_as}
    write_json(checkpoint / "config.json", kept | floats | {"quantization_config": dict(quantization)})
