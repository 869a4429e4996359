"""Models as ONNX Runtime GenAI exports them, run by ONNX Runtime alone in our own worker."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch
from edgewright_agent.engines.worker_launch import SEQUENCES_MAX, worker_launch

KIND = "onnxruntime-genai"
FORMAT: Format = "onnx"
INTERPRETER_VARIABLE = "EDGEWRIGHT_ONNX_PYTHON"
WHEELS = ("onnxruntime", "onnxruntime-gpu")
MODULES = ("onnxruntime", "numpy", "tokenizers", "jinja2", "starlette", "uvicorn")


def info() -> EngineInfo:
    """Returns whether it can run here. Imports nothing of it."""
    other = os.environ.get(INTERPRETER_VARIABLE)
    if other:
        exists = shutil.which(other) is not None
        return EngineInfo(KIND, "", exists, f"in {other}" if exists else f"{other} is no executable")
    missing = [name for name in MODULES if util.find_spec(name) is None]
    if missing:
        return EngineInfo(KIND, "", False, f"{missing[0]} is missing: pip install 'edgewright[onnx]'")
    return EngineInfo(KIND, _version(), True, f"in {sys.executable}")


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Returns how its worker is started. Short requests share the KV cache of the contexts that the plan allows."""
    return worker_launch(
        interpreter(), KIND, tree, manifest, limits, socket, adapter, slots_min=SEQUENCES_MAX
    )


def interpreter() -> str:
    """Returns the Python that ONNX Runtime is installed in; JetPack 5 needs another one than the agent's."""
    return os.environ.get(INTERPRETER_VARIABLE) or sys.executable


def _version() -> str:
    """Returns the version of the wheel that brought the runtime; wheels with more providers have other names."""
    for name in WHEELS:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""
