"""Which engines are here, and how each is started."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from edgewright.errors import OutsideError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import fake, onnx, prepare_release
from edgewright_agent.engines.edge_llm import launch as edge_llm
from edgewright_agent.engines.llama_cpp import launch as llama_cpp
from edgewright_agent.engines.prepare_release import OnStep
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.protocol.engine import Engine
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch
from edgewright_agent.engines.protocol.preparation import EnginePreparation
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.engines.vllm import launch as vllm
from edgewright_agent.runtime.failures import is_shortage

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
    await _check_available(kind)
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
    and OutsideError (`ENGINE_FAILED`) if it ends or isn't ready in time. It has no reason where the board is
    out of memory, processes or room: then it says nothing of the release.
    """
    await _check_available(kind)
    try:
        socket = _socket_folder(runtime_dir) / SOCKET_NAME
        launch, process = await _spawn(kind, tree, manifest, limits, socket, adapter)
        engine = ServedEngine(kind, process, launch, socket)
        await engine.become_ready(ready_timeout_seconds)
        await _watch(engine, limits.memory_bytes)
    except OSError as error:
        reason = Reason.REASON_UNSPECIFIED if is_shortage(error) else Reason.REASON_ENGINE_FAILED
        message = (
            f"The engine {kind!r} could not be started: {error}. Free memory, processes or space in {runtime_dir}, "
            "and try again."
        )
        raise OutsideError(message, reason) from error
    return engine


async def _spawn(
    kind: str, tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> tuple[Launch, EngineProcess]:
    """Starts the engine's process. If that fails, its socket's folder is gone too. Raises also OSError."""
    try:
        launch = _KINDS[kind].launch(tree, manifest, limits, socket, adapter)
        process = await EngineProcess.spawn(
            launch.command,
            launch.environment,
            limits.memory_bytes,
            cpus=launch.cpus,
            on_line=None if launch.log is None else launch.log.read,
            words=launch.words,
        )
    except BaseException:
        shutil.rmtree(socket.parent, ignore_errors=True)
        raise
    return launch, process


async def _watch(engine: ServedEngine, memory_bytes: int | None) -> None:
    """Has the engine watched from now on. One that can't be, for want of file handles, is stopped; raises OSError."""
    try:
        engine.watch(memory_bytes)
    except BaseException:
        await engine.stop()
        raise


async def _check_available(kind: str) -> None:
    """Asks this kind alone, in a thread: a server of the user's is started once, for its help."""
    if kind not in _KINDS:
        message = f"The engine {kind!r} can't run here: known are {', '.join(_KINDS)}."
        raise RefusedError(message, Reason.REASON_ENGINE_UNAVAILABLE)
    info = await asyncio.to_thread(_KINDS[kind].info)
    if not info.available:
        message = f"The engine {kind!r} can't run here: {info.detail}."
        raise RefusedError(message, Reason.REASON_ENGINE_UNAVAILABLE)


def _socket_folder(runtime_dir: Path) -> Path:
    """Makes a folder that only this user may enter; elsewhere if its path is too long for the kernel."""
    runtime_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=runtime_dir))
    if len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="edgewright-engine-"))
