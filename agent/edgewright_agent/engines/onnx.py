"""Models as ONNX Runtime GenAI exports them, run by ONNX Runtime alone in our own worker."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.launching import Launch
from edgewright_agent.engines.protocol import EngineInfo, EngineLimits
from edgewright_agent.engines.worker import worker_launch

KIND = "onnxruntime-genai"
WHEELS = ("onnxruntime", "onnxruntime-gpu")
MODULES = ("onnxruntime", "numpy", "tokenizers", "jinja2", "starlette", "uvicorn")


def info() -> EngineInfo:
    """Whether it can run here. Imports nothing of it."""
    other = os.environ.get("EDGEWRIGHT_ONNX_PYTHON")
    if other:
        found = shutil.which(other) is not None
        return EngineInfo(KIND, "", found, f"in {other}" if found else f"{other} is no executable")
    missing = [name for name in MODULES if util.find_spec(name) is None]
    if missing:
        return EngineInfo(KIND, "", False, f"{missing[0]} is missing: pip install 'edgewright[onnx]'")
    return EngineInfo(KIND, _version(), True, f"in {sys.executable}")


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Its worker. Boards whose ONNX Runtime lives in another Python (JetPack 5) name it in EDGEWRIGHT_ONNX_PYTHON."""
    interpreter = os.environ.get("EDGEWRIGHT_ONNX_PYTHON") or sys.executable
    return worker_launch(interpreter, KIND, tree, manifest, limits, socket, adapter)


def _version() -> str:
    """Of the wheel that brought the runtime, which has other names where it has more providers."""
    for name in WHEELS:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""
