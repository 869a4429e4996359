"""Proves a configuration once: the answer is kept by configuration and by everything that it rests on."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgewright.durable import write_json
from edgewright.errors import InputError, OutsideError
from edgewright.tether import tethered
from edgewright_builder.export.onnx import exporter_environment
from edgewright_builder.fit.proof.record import Proof, digest_of_tiny, shipped_proof
from edgewright_builder.fit.proof.tiny_config import tiny_config
from edgewright_builder.model_sources import cache_folder
from edgewright_builder.run.run import last_line

DISTRIBUTIONS = ("onnxruntime-genai", "onnxruntime", "transformers")  # exporter, runtime, reference
TIMEOUT_SECONDS = 600.0  # a proof takes some ten seconds, most of them to import torch


def require_proof(config: Mapping[str, Any]) -> Proof:
    """Returns the proof that what is exported of `config` computes what transformers computes.

    Raises InputError where it does not, or can't be exported.
    """
    shipped = shipped_proof(config)
    if shipped is not None and shipped.versions == distributions():
        return shipped
    (proof,) = prove([tiny_config(config)])
    if isinstance(proof, str):
        raise InputError(f"A tiny model of this configuration can't be exported and served: {proof}")
    if not proof.equal:
        raise InputError(
            f"The engine would not compute what transformers computes for this {proof.config['model_type']} model: "
            f"{proof}. {_suspects(proof.config)}"
        )
    return proof


def prove(tiny_configs: Sequence[Mapping[str, Any]]) -> list[Proof | str]:
    """Returns the proof of each tiny configuration, or why it could not be tried. What is in the cache is not tried."""
    versions = proof_versions()
    proofs: dict[str, Proof | str] = {}
    for tiny in tiny_configs:
        if (cached := _cached(tiny, versions)) is not None:
            proofs[digest_of_tiny(tiny)] = cached
    missing = [tiny for tiny in tiny_configs if digest_of_tiny(tiny) not in proofs]
    for tiny, result in zip(missing, _run_child(missing) if missing else [], strict=True):
        if "failure" in result:
            proofs[digest_of_tiny(tiny)] = result["failure"]
        else:
            proofs[digest_of_tiny(tiny)] = proof = Proof(**result, versions=versions)
            _keep(proof)
    return [proofs[digest_of_tiny(tiny)] for tiny in tiny_configs]


def proof_versions() -> dict[str, str]:
    """Returns what a proof rests on: the distributions, and the code that exports and serves."""
    return distributions() | {"code": _code_digest()}


def distributions() -> dict[str, str]:
    """Returns the versions of exporter, runtime and transformers."""
    return {name: metadata.version(name) for name in DISTRIBUTIONS}


def _code_digest() -> str:
    """Of the exporter's rooms and of the engine's model code."""
    from edgewright_agent.engine_worker import model
    from edgewright_builder import export, parity

    folders = [Path(str(package.__file__)).parent for package in (export, parity, model)]
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _cache_file(tiny: Mapping[str, Any], versions: Mapping[str, str]) -> Path:
    return cache_folder() / "proofs" / f"{digest_of_tiny({'config': tiny, 'versions': versions})}.json"


def _cached(tiny: Mapping[str, Any], versions: Mapping[str, str]) -> Proof | None:
    try:
        return Proof(**json.loads(_cache_file(tiny, versions).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or damaged: it is tried again
        return None


def _keep(proof: Proof) -> None:
    file = _cache_file(proof.config, proof.versions)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, asdict(proof))


def _run_child(tiny_configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Raises OutsideError where the child process ends without results."""
    with TemporaryDirectory(prefix="edgewright-proof-") as scratch:
        job, log_file = Path(scratch) / "job.json", Path(scratch) / "proof.log"
        job.write_text(json.dumps(list(tiny_configs)), encoding="utf-8")
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
            raise OutsideError(f"The proof's process ended without an answer: {last_line(log_file)}")
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
