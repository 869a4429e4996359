"""Runs onnxruntime-genai's model builder, then writes into its graph what it can't.

    python -m edgewright_builder.export.model_builder JOB.json

A child process: the builder writes to the terminal and holds the model twice. The job is `Job` as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewright.errors import OutsideError
from edgewright_builder.export.decoder import (
    SHARED_ROPE,
    Decoder,
    decoder_of,
    told_to_exporter,
)
from edgewright_builder.export.graph_edits import edit_attention, edit_embedding_scale, edit_settings
from edgewright_builder.export.graph_file import GraphFile
from edgewright_builder.export.rotary import embedding_scale, meta_model, rotary_table
from edgewright_builder.fit.configuration.features import ropes_by_layer_kind

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Job:
    """One export."""

    checkpoint: str
    out: str  # gets model.onnx, model.onnx.data, genai_config.json
    cache: str  # a folder of the builder's own
    precision: Literal["int4", "fp32"]
    options: tuple[str, ...]  # NAME=VALUE, as the builder documents them
    context_tokens: int | None = None  # the longest sequence that will be served; None: the model's


def build(job: Job) -> None:
    """Writes the graph. Raises OutsideError where the builder's graph is not the one that is known."""
    from onnxruntime_genai.models import builder

    out = Path(job.out)
    prepared = builder.parse_extra_options(
        None, job.checkpoint, job.out, job.precision, "cpu", job.cache, list(job.options)
    )
    config = prepared["hf_details"]["hf_config"]
    model = meta_model(config)
    scale = embedding_scale(model)
    decoder = decoder_of(config, _rotary_dim(model, config), scale)
    prepared["hf_details"]["hf_config"] = told_to_exporter(config, decoder)
    builder.create_model(None, job.checkpoint, job.out, job.precision, "cpu", job.cache, **prepared)
    join_dangling_inputs(out / "model.onnx")
    if not decoder.plain:
        _edit(out, model, config, decoder, scale, job.context_tokens)


def _rotary_dim(model: nn.Module, config: PretrainedConfig) -> int:
    """Elements of each head that positions turn; the same in all layers."""
    ropes = list(ropes_by_layer_kind(_parameters(config))) or [SHARED_ROPE]
    return max(2 * rotary_table(model, config, rope, 1)[0].shape[1] for rope in ropes)


def _parameters(config: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = config.rope_parameters
    return parameters


def _edit(
    out: Path, model: nn.Module, config: PretrainedConfig, decoder: Decoder, scale: float, wanted: int | None
) -> None:
    positions = min(decoder.context_tokens, wanted or decoder.context_tokens)
    tables = {rope: rotary_table(model, config, rope, positions) for rope in decoder.ropes}
    file = GraphFile(out)
    edit_attention(file, decoder, tables, positions)
    if scale != 1.0:
        edit_embedding_scale(file, scale)
    edit_settings(file, decoder, positions)
    file.save()


def join_dangling_inputs(path: Path) -> None:
    """Points the shared embedding at the head's tensors.

    onnxruntime-genai 0.18 names the embedding's inputs `lm_head.MatMul.weight_Q8G32` and `…weight_scale`, the tensors
    `…weight_Q8` and `…weight_scales`: the graph does not load until they agree.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    tensors = {tensor.name for tensor in model.graph.initializer}
    known = tensors | {value.name for value in model.graph.input} | {""}
    known |= {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in known:
                node.input[position] = _its_tensor(name, tensors)
    onnx.save(model, str(path))


def _its_tensor(name: str, tensors: set[str]) -> str:
    matching = [tensor for tensor in tensors if tensor.startswith(name) or name.startswith(tensor)]
    if len(matching) != 1:
        raise OutsideError(
            f"The exported graph reads {name!r}, which it does not hold; onnxruntime-genai's builder has "
            "changed: use its version that Edgewright requires."
        )
    return matching[0]


def main(arguments: Sequence[str]) -> None:
    """Runs the job in the file that `arguments` name."""
    document = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    build(Job(**{**document, "options": tuple(document["options"])}))


if __name__ == "__main__":
    main(sys.argv[1:])
