"""llama.cpp: `llama-server` on a Unix socket. Its flags follow from the manifest and the budget.

What concerns CUDA follows llama.cpp's documentation and has not run on a board yet; the CPU build has.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgewright.errors import InputError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.llama_cpp.build import LlamaServer, find_server
from edgewright_agent.engines.llama_cpp.client import LlamaClient
from edgewright_agent.engines.llama_cpp.log import WORDS, BackendLog
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch

KIND = "llama.cpp"
FORMAT: Format = "gguf"
MODEL_FILE = "model.gguf"
MAGIC = b"GGUF"
SLICE_TOKENS = 512  # a prompt is read in slices of this many tokens: activations grow with it
EVERY_LAYER = 999
# A heartbeat waits its turn behind the requests that the server has, which may be long ones.
HEARTBEAT_SECONDS = 600.0
# llama.cpp takes flags from these too; what the agent does not set must not come from whoever started it.
FOREIGN_SETTINGS = ("LLAMA_", "AIP_")
# Threads that wait for each other spin for at most some ten microseconds: by default libgomp spins for milliseconds,
# and where another process has the processor a token then takes seconds.
SPIN_COUNT = {"GOMP_SPINCOUNT": "20000"}


def info() -> EngineInfo:
    """Returns whether it can run here. Starts a binary that the user names once, for its help."""
    server = find_server()
    if server.problem:
        return EngineInfo(KIND, server.version, False, server.problem)
    return EngineInfo(KIND, server.version, True, f"in {server.command[0]}")


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Returns how the server is started. Raises InputError if there is no GGUF file, RefusedError with an adapter."""
    if adapter is not None:
        raise RefusedError("llama.cpp is not started with adapters.", Reason.REASON_ENGINE_UNAVAILABLE)
    model = tree / manifest.engine.folder / MODEL_FILE
    _check_is_gguf(model)
    server = find_server()
    return Launch(
        command=[*server.command, *flags(server, model, manifest.name, limits, socket)],
        environment=own_environment(),
        http=LlamaClient(socket, manifest.name, tree / "tokenizer", limits),
        log=BackendLog(),
        words=WORDS,
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )


def own_environment() -> dict[str, str]:
    """Returns this process's environment without what would change the server's flags."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_SETTINGS)}
    return kept | SPIN_COUNT


def flags(server: LlamaServer, model: Path, name: str, limits: EngineLimits, socket: Path) -> list[str]:
    """Returns the server's flags: each request has a whole context, nothing is kept beside the KV cache."""
    threads = limits.threads or default_threads()
    options = {
        "--model": model,
        "--alias": name,
        "--host": socket,
        "--ctx-size": limits.concurrency * limits.context_tokens,
        "--parallel": limits.concurrency,
        "--cache-type-k": "f16",
        "--cache-type-v": "f16",
        "--batch-size": SLICE_TOKENS,
        "--ubatch-size": SLICE_TOKENS,
        "--threads": threads,
        "--threads-batch": threads,
        "--reasoning-format": "none",
        # What a request leaves out is OpenAI's default, not llama.cpp's.
        "--temp": 1.0,
        "--top-k": 0,
        "--top-p": 1.0,
        "--min-p": 0.0,
    }
    words = [str(word) for option in options.items() for word in option]
    return [*words, "--jinja", "--no-prefill-assistant", *_memory_flags(server)]


def _memory_flags(server: LlamaServer) -> list[str]:
    """Returns what keeps the memory to weights and KV cache; the names of some of it changed over time.

    The weights are read, not mapped. A mapped file would be held a second time once its tensors are repacked for the
    processor (248 against 191 MiB for SmolLM2-135M), and its pages could be dropped and read again while serving.
    """
    if not server.has_gpu:  # the package, whose flags are ours
        return ["--load-mode", "none", "--cache-ram", "0", "--ctx-checkpoints", "0", "--no-ui", "--offline"]
    alternatives = (
        [("--load-mode", "none"), ("--no-mmap",)],
        [("--cache-ram", "0")],  # prompts kept beside the KV cache: 8 GiB by default
        [("--ctx-checkpoints", "0"), ("--swa-checkpoints", "0")],
        [("--fit", "off")],  # by which the server would choose fewer layers and a shorter context by itself
        [("--no-kv-unified",)],
        [("--no-ui",), ("--no-webui",)],
        [("--offline",)],
        [("--gpu-layers", str(EVERY_LAYER))],
    )
    chosen = (next((words for words in names if server.has(words[0])), ()) for names in alternatives)
    return [word for words in chosen for word in words]


def _check_is_gguf(model: Path) -> None:
    try:
        with model.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"The release holds no model for llama.cpp: {model}: {error.strerror}.") from error
    if begins != MAGIC:
        raise InputError(
            f"The release holds no model for llama.cpp: {model} begins with {begins!r}, expected {MAGIC!r}."
        )
