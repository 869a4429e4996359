"""vLLM: `vllm serve` on a Unix socket, in the interpreter it is installed in.

Its flags follow from the manifest and the budget. What concerns CUDA follows vLLM's documentation and has not run on a
board yet; the CPU build has.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil

from edgewright.errors import InputError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.process.cpus import choose_cpus, default_threads
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch
from edgewright_agent.engines.vllm.build import (
    COMMAND_VARIABLE,
    VllmBuild,
    find_vllm,
    name_as_vllm,
    vllm_command,
)
from edgewright_agent.engines.vllm.client import VllmClient
from edgewright_agent.engines.vllm.log import WORDS, KernelLog

KIND = "vllm"
FORMAT: Format = "checkpoint"
# A prompt is read in slices of this many tokens: activations, and the logits of a prompt that is scored, grow with it.
SLICE_TOKENS = 512
BLOCK_TOKENS = 128  # the KV cache is handed out in blocks: of 128 tokens on CPUs, fewer on GPUs
# A heartbeat waits its turn behind the requests that vLLM has, which may be long ones.
HEARTBEAT_SECONDS = 600.0
UTILIZATION = (0.05, 0.95)  # bounds of --gpu-memory-utilization
PRIVATE = {
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1", "NO_COLOR": "1",
}  # fmt: skip
SHAPE = ("num_hidden_layers", "num_attention_heads", "hidden_size")
DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


def info() -> EngineInfo:
    """Returns whether it can run here. Starts nothing."""
    command = vllm_command()
    try:
        build = find_vllm(command)
    except (OSError, ValueError) as error:
        return EngineInfo(KIND, "", False, f"the vLLM of {command} can't be read: {error}; install it again")
    if build is None:
        detail = f"{command} is no executable: install vLLM in its own environment and name it in {COMMAND_VARIABLE}"
        return EngineInfo(KIND, "", False, detail)
    return EngineInfo(
        KIND, build.version, True, f"{build.name or 'of unknown version'} in {shutil.which(command)}"
    )


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Returns how `vllm serve` is started. Raises RefusedError (`ENGINE_UNAVAILABLE`) with an adapter."""
    if adapter is not None:
        raise RefusedError("vLLM is not started with adapters.", Reason.REASON_ENGINE_UNAVAILABLE)
    build = find_vllm(vllm_command())
    assert build is not None, "see info"
    cpus = choose_cpus(limits.threads or default_threads())
    return Launch(
        command=_command(build, tree, manifest, limits, socket),
        environment=_environment(build, cpus, socket.parent),
        http=VllmClient(socket, manifest.name, tree / "tokenizer", limits),
        log=KernelLog(),
        words=WORDS,
        cpus=None if limits.threads is None else frozenset(cpus),
        several_processes=True,
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )


def kv_cache_bytes(config: dict[str, Any], limits: EngineLimits) -> int:
    """Returns what every request's whole context takes, in whole blocks, and one block that vLLM keeps for itself."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    elements = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * head_dim
    blocks = limits.concurrency * -(-limits.context_tokens // BLOCK_TOKENS) + 1
    return int(blocks * BLOCK_TOKENS * elements * DTYPE_BYTES.get(_dtype(config), 2))


def _command(
    build: VllmBuild, tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path
) -> list[str]:
    model = tree / manifest.engine.folder
    config = _read_config(model)
    options: dict[str, Any] = {
        "--tokenizer": tree / "tokenizer",
        "--served-model-name": manifest.name,
        "--uds": socket,
        "--dtype": _dtype(config),
        "--max-model-len": limits.context_tokens,
        "--max-num-seqs": limits.concurrency,
        "--max-num-batched-tokens": max(SLICE_TOKENS, limits.concurrency),
        "--kv-cache-memory-bytes": kv_cache_bytes(config, limits),
        "--generation-config": "vllm",  # a request that leaves a value out gets OpenAI's default, not the model's
    }
    words = [str(word) for option in options.items() for word in option]
    words += ["--enforce-eager"] if build.on_cpu else _gpu_options(limits)
    quiet = ("--disable-uvicorn-access-log", "--disable-log-stats")
    return [vllm_command(), "serve", str(model), *words, *quiet]


def _gpu_options(limits: EngineLimits) -> list[str]:
    """Returns options for CUDA graphs of the batches that can come, and for no more memory than the budget.

    vLLM refuses to start unless --gpu-memory-utilization of all memory is free; by default that is nine tenths. Tegra's
    GPU shares the board's memory.
    """
    powers = (1 << power for power in range(limits.concurrency.bit_length()))
    options = ["--cudagraph-capture-sizes", *map(str, sorted({*powers, limits.concurrency}))]
    if limits.memory_bytes is not None:
        share = limits.memory_bytes / psutil.virtual_memory().total
        options += ["--gpu-memory-utilization", f"{min(max(share, UTILIZATION[0]), UTILIZATION[1]):.3f}"]
    return options


def _environment(build: VllmBuild, cpus: tuple[int, ...], private: Path) -> dict[str, str]:
    """Returns the child's environment, without the variable whose KV cache size in whole GiB would override ours."""
    environment = {
        key: value for key, value in os.environ.items() if key != "VLLM_CPU_KVCACHE_SPACE"
    } | PRIVATE
    if not build.on_cpu:
        return environment
    # Run eagerly: compiling would need a C++ compiler on the board, and time at every start.
    environment |= {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)), "TORCHDYNAMO_DISABLE": "1"}
    if build.name != "vllm":
        name_as_vllm(build, private / "python")
        paths = [str(private / "python"), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _dtype(config: dict[str, Any]) -> str:
    """Returns the type of the checkpoint's unquantized tensors."""
    named = config.get("dtype") or config.get("torch_dtype")
    return named if named in DTYPE_BYTES else "auto"


def _read_config(model: Path) -> dict[str, Any]:
    file = model / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The release holds no checkpoint for vLLM: {file}: {error}.") from error
    if missing := [name for name in SHAPE if name not in config]:
        raise InputError(f"The release holds no language model for vLLM: {file} lacks {missing[0]}.")
    return config
