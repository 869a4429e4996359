"""Which engines are here, and how each is started."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path

import psutil

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.client import EngineClient
from edgewright_agent.engines.process import EngineProcess
from edgewright_agent.engines.protocol import Engine, EngineInfo, EngineLimits
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.errors import RefusedError
from edgewright_agent.manifest import Manifest

ONNX_MODULES = ("onnxruntime_genai", "numpy", "tokenizers", "jinja2", "starlette", "uvicorn")
# glibc's malloc (mallopt(3)): one thread allocates, so few arenas; blocks from 1 MiB on (KV caches, logits) go back to
# the kernel when they are freed, so that memory is what is in use and not what once was.
LEAN_MALLOC = {
    "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**17),
}  # fmt: skip
SOCKET_PATH_BYTES_MAX = 100  # the kernel's limit is 107


def available_engines() -> list[EngineInfo]:
    """Every kind of engine, available here or not. Imports none of them."""
    return [_onnx_info(), _vllm_info(), _fake_info()]


async def start_engine(
    kind: str,
    tree: Path,
    manifest: Manifest,
    limits: EngineLimits,
    *,
    runtime_dir: Path,
    ready_timeout_seconds: float,
    adapter: Path | None = None,
) -> Engine:
    """Start the engine of `kind` on the model in `tree`, with `adapter` if given; return it once it answers.

    Its socket lies in a private folder below `runtime_dir`. Raises RefusedError (`ENGINE_UNAVAILABLE`) if
    the engine can't run here and OutsideError (`ENGINE_FAILED`) if it ends or isn't ready in time.
    """
    _check_available(kind)
    socket = _socket_folder(runtime_dir) / "http"
    command = _worker_command(kind, tree, manifest, limits, socket)
    if adapter is not None:
        command += ["--adapter", str(adapter)]
    process = await EngineProcess.spawn(command, _environment(), limits.memory_bytes)
    engine = ServedEngine(kind, process, EngineClient(socket, manifest.name), socket)
    await engine.become_ready(ready_timeout_seconds)
    if limits.memory_bytes is not None:
        process.hold_to(limits.memory_bytes)
    return engine


def _check_available(kind: str) -> None:
    infos = {info.kind: info for info in available_engines()}
    if kind not in infos or not infos[kind].available:
        why = infos[kind].detail if kind in infos else f"known are {', '.join(infos)}"
        raise RefusedError(f"The engine {kind!r} can't run here: {why}.", Reason.REASON_ENGINE_UNAVAILABLE)


def _worker_command(
    kind: str, tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path
) -> list[str]:
    command = [_interpreter(), "-m", "edgewright_agent.engine_worker", kind]
    options = {
        "--engine-folder": tree / manifest.engine.folder,
        "--tokenizer-folder": tree / "tokenizer",
        "--model": manifest.name,
        "--context-tokens": limits.context_tokens,
        "--threads": limits.threads or default_threads(),
        "--socket": socket,
    }
    return command + [str(word) for option in options.items() for word in option]


def _environment() -> dict[str, str]:
    return os.environ | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"} | LEAN_MALLOC


def default_threads() -> int:
    """One per physical core that this process may run on."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def _interpreter() -> str:
    """Boards whose ONNX Runtime lives in another Python (JetPack 6) name it; Edgewright is installed there too."""
    return os.environ.get("EDGEWRIGHT_ONNX_PYTHON") or sys.executable


def _socket_folder(runtime_dir: Path) -> Path:
    """A new folder that only we may enter; a short path elsewhere if the kernel's limit demands it."""
    runtime_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=runtime_dir))
    if len(os.fsencode(folder / "http")) <= SOCKET_PATH_BYTES_MAX:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgewright-engine-"))


def _onnx_info() -> EngineInfo:
    kind, other = "onnxruntime-genai", os.environ.get("EDGEWRIGHT_ONNX_PYTHON")
    if other:
        found = shutil.which(other) is not None
        return EngineInfo(kind, "", found, f"in {other}" if found else f"{other} is no executable")
    missing = [name for name in ONNX_MODULES if util.find_spec(name) is None]
    if missing:
        return EngineInfo(kind, "", False, f"{missing[0]} is missing: pip install 'edgewright[onnx]'")
    return EngineInfo(kind, metadata.version("onnxruntime-genai"), True, f"in {sys.executable}")


def _vllm_info() -> EngineInfo:
    command = os.environ.get("EDGEWRIGHT_VLLM", "vllm")
    if shutil.which(command) is None:
        detail = (
            f"{command} is no executable: install vLLM in its own environment and name it in EDGEWRIGHT_VLLM"
        )
        return EngineInfo("vllm", "", False, detail)
    return EngineInfo("vllm", "", False, "this version of the agent does not drive vLLM yet")


def _fake_info() -> EngineInfo:
    on = os.environ.get("EDGEWRIGHT_FAKE_ENGINE") == "1"
    return EngineInfo("fake", "1", on, "for tests" if on else "for tests: set EDGEWRIGHT_FAKE_ENGINE=1")
