"""Which engines are here, and how each is started."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from edgewright.errors import EdgewrightError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import fake, onnx, prepare_release
from edgewright_agent.engines.edge_llm import launch as edge_llm
from edgewright_agent.engines.llama_cpp import launch as llama_cpp
from edgewright_agent.engines.prepare_release import OnStep
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.protocol.engine import Engine
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format
from edgewright_agent.engines.protocol.preparation import EnginePreparation
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.engines.vllm import launch as vllm

# One module per kind of engine, with its `KIND`, `FORMAT`, `info` and `launch`; `preparation` where a board has to make
# something of a release first.
_KINDS = {module.KIND: module for module in (onnx, llama_cpp, edge_llm, vllm, fake)}
SOCKET_NAME = "http.sock"  # llama.cpp takes a name for a socket's by its ending
SOCKET_PATH_BYTES_MAX = 100  # the kernel's limit is 107


def available_engines() -> list[EngineInfo]:
    """Returns every kind of engine, available here or not. Imports none of them."""
    return [module.info() for module in _KINDS.values()]


def format_of(kind: str) -> Format:
    """Returns what the folder of an engine holds; "any" for a kind that is unknown here."""
    return _KINDS[kind].FORMAT if kind in _KINDS else "any"


async def prepare_engine(
    kind: str,
    tree: Path,
    manifest: Manifest,
    limits: EngineLimits,
    *,
    memory_bytes: int | None = None,
    on_step: OnStep = lambda step: None,
) -> None:
    """Makes what the engine of `kind` needs of the model in `tree`, if that was not done before.

    Takes at most `memory_bytes`. Raises as `start_engine`, and OutsideError (`ENGINE_FAILED`, `DISK_SPACE`) if it
    fails; then nothing is left of it.
    """
    plan = getattr(_KINDS.get(kind), "preparation", None)
    if plan is None:
        return
    _check_available(kind)
    preparation: EnginePreparation = plan(tree, manifest, limits)
    if not prepare_release.is_prepared(preparation, tree):
        await prepare_release.prepare(preparation, tree, memory_bytes=memory_bytes, on_step=on_step)


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
    """Starts the engine of `kind` on the model in `tree`, with `adapter` if given; returns it once it answers.

    What it needs was prepared: see `prepare_engine`. Its socket lies in a private folder below `runtime_dir`.

    Raises RefusedError (`ENGINE_UNAVAILABLE`) if the engine can't run here, InputError for a release it can't load,
    and OutsideError (`ENGINE_FAILED`) if it ends or isn't ready in time.
    """
    _check_available(kind)
    socket = _socket_folder(runtime_dir) / SOCKET_NAME
    try:
        launch = _KINDS[kind].launch(tree, manifest, limits, socket, adapter)
    except EdgewrightError:
        shutil.rmtree(socket.parent)
        raise
    process = await EngineProcess.spawn(
        launch.command,
        launch.environment,
        limits.memory_bytes,
        cpus=launch.cpus,
        on_line=None if launch.log is None else launch.log.read,
        words=launch.words,
    )
    engine = ServedEngine(kind, process, launch, socket)
    await engine.become_ready(ready_timeout_seconds)
    engine.watch(limits.memory_bytes)
    return engine


def _check_available(kind: str) -> None:
    infos = {info.kind: info for info in available_engines()}
    if kind not in infos or not infos[kind].available:
        why = infos[kind].detail if kind in infos else f"known are {', '.join(infos)}"
        raise RefusedError(f"The engine {kind!r} can't run here: {why}.", Reason.REASON_ENGINE_UNAVAILABLE)


def _socket_folder(runtime_dir: Path) -> Path:
    """Makes a folder that only this user may enter; elsewhere if its path is too long for the kernel."""
    runtime_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=runtime_dir))
    if len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgewright-engine-"))
