"""The build step: what `experimental/server/runtime/engine_build.py` of the wheel 0.11.0 does, without TensorRT.

`stub.json` beside the weights says how it goes: `build_seconds`, `goes_on_once_exists` (the name of a file in the
folder for temporary files), `fails` (a last line), `takes_bytes`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUILDER = logging.getLogger("experimental.builder")
CORE = logging.getLogger("experimental.builder.core.builder")
BEHAVIOUR = "stub.json"


@dataclass(frozen=True)
class BuildOptions:
    """The fields that a text model is built with; the wheel has more, for drafts and images."""

    max_input_len: int | None = None
    max_kv_cache_capacity: int | None = None
    max_batch_size: int | None = None


def behaviour(model: Path) -> dict[str, Any]:
    """How the stand-in shall behave."""
    file = model / BEHAVIOUR
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def bundle_path(model: Path, cache_dir: Path, options: BuildOptions) -> Path:
    """Where the engine of a checkpoint and of these sizes lies in a cache."""
    digest = hashlib.sha256()
    for file in sorted(model.iterdir()):
        if file.name != BEHAVIOUR:
            digest.update(file.name.encode() + str(file.stat().st_size).encode())
    profile = hashlib.sha256(json.dumps(asdict(options)).encode()).hexdigest()[:12]
    return cache_dir / "engines" / f"model-{digest.hexdigest()[:16]}" / f"profile-{profile}"


def prepare_model(model: str, cache_dir: str, options: BuildOptions) -> Path:
    """Builds the engine unless the cache has it; returns its folder."""
    source, bundle = Path(model), bundle_path(Path(model), Path(cache_dir), options)
    if (bundle / "llm.engine").exists():
        return bundle
    bundle.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=bundle.parent))
    try:
        _build(source, staging, options)
        staging.replace(bundle)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return bundle


def _build(model: Path, folder: Path, options: BuildOptions) -> None:
    said = behaviour(model)
    BUILDER.info("Building 1 engines for llama: llm")
    BUILDER.info("Building component llm")
    CORE.info("Building serialized engine (this may take several minutes)...")
    held = bytearray(int(said.get("takes_bytes", 0)))
    held[::4096] = b"x" * len(held[::4096])  # touched, so that it is resident
    (folder / "config.json").write_text(json.dumps({"builder_config": asdict(options)}), encoding="utf-8")
    time.sleep(float(said.get("build_seconds", 0)))
    while not (Path(tempfile.gettempdir()) / said.get("goes_on_once_exists", "")).exists():
        time.sleep(0.01)
    if "fails" in said:
        CORE.error("[TRT] %s", said["fails"])
        raise RuntimeError("build_serialized_network returned None")
    shutil.copyfile(model / "tokenizer.json", folder / "tokenizer.json")
    (folder / "llm.engine").write_bytes(b"engine of letters")
    CORE.info("Engine written to %s (%d bytes)", folder / "llm.engine", 17)
