"""TensorRT Edge-LLM: the wheel's own build and server, in the interpreter it is installed in.

Both commands follow the wheel 0.11.0. No board has run them; the tests run a stub that takes the same flags.
"""

from __future__ import annotations

import os
import re
import secrets
import socket as sockets
from pathlib import Path

from edgewright.errors import OutsideError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.edge_llm.chat_body import TextEnds
from edgewright_agent.engines.edge_llm.checkpoint import adds_bos, end_tokens, read_config
from edgewright_agent.engines.edge_llm.client import EdgeLlmClient
from edgewright_agent.engines.edge_llm.log import WORDS, BuildLog, step_of
from edgewright_agent.engines.edge_llm.serve import KEY, PORT
from edgewright_agent.engines.edge_llm.wheel import Wheel, find_wheel, problem_here
from edgewright_agent.engines.http.exchange import LOOPBACK, LoopbackPort
from edgewright_agent.engines.http.request_checks import WAITING_MAX
from edgewright_agent.engines.http.special_tokens import SpecialTokens
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch
from edgewright_agent.engines.protocol.preparation import EnginePreparation, prepared_folder

KIND = "tensorrt-edge-llm"
FORMAT: Format = "checkpoint"
SERVE = Path(__file__).with_name("serve.py")
BUILD = Path(__file__).with_name("build_engine.py")
# A heartbeat waits its turn behind the requests that the server has, which may be long ones.
HEARTBEAT_SECONDS = 600.0
# What the agent does not set must not come from whoever started it; and nothing is fetched.
FOREIGN_SETTINGS = ("EDGELLM_", "PYTHON")
PRIVATE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
QUEUE_SECONDS = 24 * 3600.0  # the caller's deadline bounds a request, not the server
RESERVED_TOKENS = 1  # of the KV cache, that the runtime keeps free


def info() -> EngineInfo:
    """Returns whether it can run here. Starts nothing."""
    problem = problem_here()
    if problem is not None:
        return EngineInfo(KIND, "", False, problem)
    wheel = _wheel()
    return EngineInfo(
        KIND,
        wheel.version,
        True,
        f"with TensorRT {wheel.tensorrt} in {wheel.environment}; no board has run it yet",
    )


def preparation(tree: Path, manifest: Manifest, limits: EngineLimits) -> EnginePreparation:
    """Returns how its engine is built: once per release, version and size. Raises InputError if it can't be."""
    wheel, model = _wheel(), tree / manifest.engine.folder
    read_config(model)
    return EnginePreparation(
        key=_key(wheel, limits),
        what=f"TensorRT Edge-LLM {wheel.version} with TensorRT {wheel.tensorrt}",
        command=lambda folder: [
            str(wheel.interpreter), "-I", str(BUILD), str(model), "--cache-dir", str(folder), *_sizes(limits),
        ],
        environment=_environment(),
        step_of=step_of,
        words=WORDS,
    )  # fmt: skip


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Returns how the server is started on the engine that was prepared.

    Raises RefusedError (`ENGINE_UNAVAILABLE`) with an adapter, InputError for a checkpoint it can't serve, and
    OutsideError (`ENGINE_FAILED`) if nothing was prepared.
    """
    if adapter is not None:
        raise RefusedError(
            "TensorRT Edge-LLM is not started with adapters.", Reason.REASON_ENGINE_UNAVAILABLE
        )
    wheel, model = _wheel(), tree / manifest.engine.folder
    config, tokenizer = read_config(model), tree / "tokenizer"
    prepared = prepared_folder(tree, _key(wheel, limits))
    if not prepared.is_dir():
        message = f"The release has no engine for TensorRT Edge-LLM {wheel.version} yet. Activate it again."
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED)
    endpoint = LoopbackPort(_free_port(), secrets.token_hex(32))  # never begins like an option
    bos = SpecialTokens.of(tokenizer).bos if adds_bos(tokenizer) else ""
    return Launch(
        command=_command(wheel, model, prepared, manifest, limits),
        environment=_environment() | {PORT: str(endpoint.port), KEY: endpoint.key},
        http=EdgeLlmClient(endpoint, manifest.name, TextEnds(bos, end_tokens(model, config)), limits),
        log=BuildLog(),
        words=WORDS,
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )


def _command(
    wheel: Wheel, model: Path, prepared: Path, manifest: Manifest, limits: EngineLimits
) -> list[str]:
    options = {
        "--cache-dir": prepared,
        "--served-model-name": manifest.name,
        "--max-queued-requests": WAITING_MAX,
        "--queue-timeout": QUEUE_SECONDS,
        "--reasoning-parser": "none",
        "--log-level": "info",
    }
    words = [str(word) for option in options.items() for word in option]
    together = ["--enable-in-flight-batching"] if limits.concurrency > 1 else []
    return [str(wheel.interpreter), "-I", str(SERVE), str(model), *_sizes(limits), *words, *together]


def _sizes(limits: EngineLimits) -> list[str]:
    """Returns the sizes that an engine is built for, which the server has to be given again to find it."""
    sizes = {
        "--max-input-len": limits.context_tokens - 1,  # and at least one token of an answer
        "--max-kv-cache-capacity": limits.context_tokens + RESERVED_TOKENS,
        "--max-batch-size": limits.concurrency,
    }
    return [str(word) for option in sizes.items() for word in option]


def _key(wheel: Wheel, limits: EngineLimits) -> str:
    key = f"{wheel.version}-tensorrt-{wheel.tensorrt}-{limits.context_tokens}x{limits.concurrency}"
    return re.sub(r"[^\w.+-]", "_", key)


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_SETTINGS)}
    return kept | PRIVATE


def _free_port() -> int:
    """Returns a port that nobody has. If somebody takes it meanwhile, the server ends, and is started on another."""
    with sockets.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _wheel() -> Wheel:
    wheel = find_wheel()
    if wheel is None:
        raise RefusedError("The wheel tensorrt-edgellm is gone.", Reason.REASON_ENGINE_UNAVAILABLE)
    return wheel
