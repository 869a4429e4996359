"""Proves tiny configurations in a process of its own, as the exporter writes to the terminal and imports torch.

    python -m edgewright_builder.parity.child JOB.json

The job names an engine and lists tiny configurations; beside it `results.json` gets for each what `Proof` holds, or why
it failed.
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


def main(job_file: Path) -> None:
    """Runs every configuration of the job."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    results = [_result(job["engine"], tiny) for tiny in job["tiny_configs"]]
    write_json(job_file.with_name("results.json"), {"results": results})


def _result(engine: str, tiny: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        with TemporaryDirectory(prefix="edgewright-proof-") as scratch:
            compared = _compared(engine, tiny, Path(scratch))
    except Exception as error:  # noqa: BLE001 - whatever an exporter or a runtime raises is the answer
        return {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"engine": engine, **compared, "seconds": round(time.monotonic() - started, 2)}


def _compared(engine: str, tiny: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    from edgewright_builder.fit.proof.record import proof_traits
    from edgewright_builder.parity.compare import comparison
    from edgewright_builder.parity.provers import PROVERS

    prover, checkpoint = PROVERS[engine], scratch / "checkpoint"
    model = prover.make(tiny, checkpoint)
    served = prover.serve(checkpoint, bool(tiny["tie_word_embeddings"]), scratch)
    return {"config": tiny, **comparison(model, prover.sequences, served, proof_traits(engine).tolerance)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
