"""A tiny model in the ONNX Runtime worker, as its scheduler runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright_builder.fit.proof.tiny_config import POSITIONS
from edgewright_builder.parity.checkpoint import HEAD_BITS, make_checkpoint
from edgewright_builder.parity.compare import Logits, Served, Tokens, sequences

if TYPE_CHECKING:
    from torch import nn

    from edgewright_agent.engine_worker.model.onnx import OnnxBackend

# The products are computed in float32, not int8 as in what ships, so that nothing but the model itself can differ.
FLOAT_COMPUTE = "accuracy_level=1"
DISTRIBUTIONS = ("onnxruntime-genai", "onnxruntime", "transformers")  # exporter, runtime, reference
SEQUENCES = sequences()
SLICE_TOKENS = 70  # prompts are read in slices
STEPS = 9  # tokens at the end of a sequence that are generated one by one


def versions() -> dict[str, str]:
    """Returns the versions of exporter, runtime and transformers."""
    return {name: metadata.version(name) for name in DISTRIBUTIONS}


def make(tiny: Mapping[str, Any], checkpoint: Path) -> nn.Module:
    """Writes the checkpoint; returns its model."""
    return make_checkpoint(tiny, checkpoint)


def serve(checkpoint: Path, tied: bool, scratch: Path) -> Served:
    """Exports the checkpoint and returns what the worker computes of `SEQUENCES`."""
    from edgewright_agent.engine_worker.model.onnx import OnnxBackend
    from edgewright_builder.export.model_builder import Job, build
    from edgewright_builder.export.onnx import quantized_options

    engine = scratch / "engine"
    options = quantized_options(tied=tied, embedding_bits=HEAD_BITS)
    options = [FLOAT_COMPUTE if option.startswith("accuracy_level=") else option for option in options]
    build(Job(str(checkpoint), str(engine), str(scratch / "cache"), "int4", tuple(options)))
    backend = OnnxBackend(engine, checkpoint, POSITIONS, threads=1, concurrency=2)
    return Served([*_together(backend, SEQUENCES[:2]), *_together(backend, SEQUENCES[2:])])


def _together(backend: OnnxBackend, tokens: Sequence[Tokens]) -> list[Logits]:
    """As the scheduler has it: prompts slice by slice into rows of the pool, then one step for all rows at a time."""
    from edgewright_agent.engine_worker.batching.pool import Pool

    pool = Pool(backend.layout, backend.pool_tokens, backend.context_tokens, backend.copy)
    rows = [pool.take(len(sequence), list(sequence), None) for sequence in tokens]
    places = [row.place for row in rows if row is not None]
    pieces: list[list[Logits]] = [[] for _ in tokens]
    for place, sequence, read in zip(places, tokens, pieces, strict=True):
        prompt = sequence[:-STEPS]
        for past in range(0, len(prompt), SLICE_TOKENS):
            logits = backend.read(place, past, prompt[past : past + SLICE_TOKENS], None)
            read.append(np.array(logits))
    for step in range(STEPS):
        pasts = [len(sequence) - STEPS + step for sequence in tokens]
        steps = [sequence[past] for sequence, past in zip(tokens, pasts, strict=True)]
        for read, logits in zip(pieces, backend.step(places, pasts, steps, None), strict=True):
            read.append(np.array(logits)[None])
    return [np.concatenate(read) for read in pieces]
