"""Proves a configuration once: the answer is kept by configuration and by everything that it rests on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgewright.die_with_parent import tethered
from edgewright.durable import write_json
from edgewright.errors import InputError, OutsideError
from edgewright_builder.export.onnx import exporter_environment
from edgewright_builder.fit.proof.record import Proof, digest_of_tiny, shipped_proof, tiny_for
from edgewright_builder.models.sources import cache_folder
from edgewright_builder.parity.provers import PROVERS
from edgewright_builder.run.resumable_run import last_line

TIMEOUT_SECONDS = 600.0  # a proof takes some ten seconds, most of them to import torch


def require_proof(config: Mapping[str, Any], engine: str) -> Proof:
    """Returns the proof that what is exported of `config` computes in the engine what transformers computes.

    Raises InputError where it does not, can't be exported, or nothing is exported for this engine; and RefusedError
    where the engine can't run here.
    """
    tiny, shipped = tiny_for(config, engine), shipped_proof(config, engine)
    if shipped is not None and shipped.versions == PROVERS[engine].versions():
        return shipped
    (proof,) = prove(engine, [tiny])
    if isinstance(proof, str):
        raise InputError(f"A tiny model of this configuration can't be exported and served: {proof}")
    if not proof.equal:
        raise InputError(
            f"{engine} would not compute what transformers computes for this {proof.config['model_type']} model: "
            f"{proof}. {_suspects(proof.config)}"
        )
    return proof


def prove(engine: str, tiny_configs: Sequence[Mapping[str, Any]]) -> list[Proof | str]:
    """Returns the proof of each tiny configuration, or why it could not be tried. What is in the cache is not tried."""
    versions = proof_versions(engine)
    proofs: dict[str, Proof | str] = {}
    for tiny in tiny_configs:
        if (cached := _cached(engine, tiny, versions)) is not None:
            proofs[digest_of_tiny(tiny)] = cached
    missing = [tiny for tiny in tiny_configs if digest_of_tiny(tiny) not in proofs]
    for tiny, result in zip(missing, _run_child(engine, missing) if missing else [], strict=True):
        if "failure" in result:
            proofs[digest_of_tiny(tiny)] = result["failure"]
        else:
            proofs[digest_of_tiny(tiny)] = proof = Proof(**result, versions=versions)
            _keep(proof)
    return [proofs[digest_of_tiny(tiny)] for tiny in tiny_configs]


def proof_versions(engine: str) -> dict[str, str]:
    """Returns what a proof rests on: versions, and the code that exports and serves. Raises RefusedError as
    `require_proof`.
    """
    return PROVERS[engine].versions() | {"code": _code_digest(engine)}


def _code_digest(engine: str) -> str:
    files = sorted(file for folder in PROVERS[engine].rooms for file in folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _cache_file(engine: str, tiny: Mapping[str, Any], versions: Mapping[str, str]) -> Path:
    key = digest_of_tiny({"engine": engine, "config": tiny, "versions": versions})
    return cache_folder() / "proofs" / f"{key}.json"


def _cached(engine: str, tiny: Mapping[str, Any], versions: Mapping[str, str]) -> Proof | None:
    try:
        return Proof(**json.loads(_cache_file(engine, tiny, versions).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or damaged: it is tried again
        return None


def _keep(proof: Proof) -> None:
    file = _cache_file(proof.engine, proof.config, proof.versions)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(proof))


def _run_child(engine: str, tiny_configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Raises OutsideError where the child process ends without results."""
    with TemporaryDirectory(prefix="edgewright-proof-") as scratch:
        job, log_file = Path(scratch) / "job.json", Path(scratch) / "proof.log"
        write_json(job, {"engine": engine, "tiny_configs": list(tiny_configs)})
        command = [*tethered(), sys.executable, "-m", "edgewright_builder.parity.child", str(job)]
        with log_file.open("w", encoding="utf-8") as log:
            try:
                subprocess.run(
                    command, stdout=log, stderr=subprocess.STDOUT, env=exporter_environment(), check=False,
                    timeout=TIMEOUT_SECONDS + 60 * len(tiny_configs),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise OutsideError(
                    f"The proof of {len(tiny_configs)} configurations was not done after {TIMEOUT_SECONDS:.0f} s; "
                    "try again when this host has less to do."
                ) from None
        results = Path(scratch) / "results.json"
        if not results.is_file():
            raise OutsideError(
                f"The proof's process ended without an answer; run it again. {last_line(log_file)}"
            )
        rows: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))["results"]
        return rows


def _suspects(tiny: Mapping[str, Any]) -> str:
    """Returns what of the configuration may be the reason: all that plain Llama does not have."""
    kinds = tiny["rope_parameters"]
    kinds = [each for each in kinds.values() if isinstance(each, dict)] or [kinds]
    suspects = {"rope_type": ", ".join(dict.fromkeys(each["rope_type"] for each in kinds))}
    usual = (
        "model_type",
        "vocab_size",
        "intermediate_size",
        "num_hidden_layers",
        "hidden_size",
        "rms_norm_eps",
    )
    suspects |= {
        key: value for key, value in tiny.items() if key not in (*usual, "rope_parameters") and value
    }
    return (
        "It has "
        + ", ".join(f"{key} {value}" for key, value in suspects.items() if "token_id" not in key)
        + "."
    )
