"""Proves tiny configurations in a process of its own, as the exporter writes to the terminal and imports torch.

    python -m edgewright_builder.parity.child JOB.json

The job lists tiny configurations; beside it `results.json` gets for each what `Proof` holds, or why it failed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgewright.durable import write_json

# The products are computed in float32, not int8 as in what ships, so that nothing but the model itself can differ.
FLOAT_COMPUTE = "accuracy_level=1"


def main(job_file: Path) -> None:
    """Runs every configuration of the job."""
    results = [_result(tiny) for tiny in json.loads(job_file.read_text(encoding="utf-8"))]
    write_json(job_file.with_name("results.json"), {"results": results})


def _result(tiny: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        with TemporaryDirectory(prefix="edgewright-proof-") as scratch:
            comparison = _compared(tiny, Path(scratch))
    except Exception as error:  # noqa: BLE001 - whatever an exporter or a runtime raises is the answer
        return {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**comparison, "seconds": round(time.monotonic() - started, 2)}


def _compared(tiny: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    from edgewright_builder.export.model_builder import Job, build
    from edgewright_builder.export.onnx import quantized_options
    from edgewright_builder.parity.checkpoint import HEAD_BITS, make_checkpoint
    from edgewright_builder.parity.compare import agreement, logits_of

    checkpoint, engine = scratch / "checkpoint", scratch / "engine"
    model = make_checkpoint(tiny, checkpoint)
    options = quantized_options(tied=bool(tiny["tie_word_embeddings"]), embedding_bits=HEAD_BITS)
    options = [FLOAT_COMPUTE if option.startswith("accuracy_level=") else option for option in options]
    build(Job(str(checkpoint), str(engine), str(scratch / "cache"), "int4", tuple(options)))
    expected, served, positions = logits_of(model, engine, checkpoint)
    return {
        "config": tiny,
        "max_logit_difference": float(abs(expected - served).max()),
        "logit_deviation": float(expected.std()),
        "argmax_agreement": agreement(expected, served, positions),
        "tokens": len(positions),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
