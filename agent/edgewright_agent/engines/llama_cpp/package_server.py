"""Runs the server of the package xllamacpp as llama-server is run: with llama-server's flags, until SIGTERM.

A script of its own, which imports nothing of Edgewright. The package has llama-server's code as a library, and takes
its parameters as fields; here each flag that the engine gives is set as llama-server would set it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Any

import xllamacpp

FLASH_ATTENTION = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}


def main(words: list[str]) -> None:
    """Serves until the process is told to end. Exits with 1 if the model can't be loaded: the library has said why."""
    try:
        server = xllamacpp.Server(parameters(_parser().parse_args(words)))
    except RuntimeError:
        sys.exit(1)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server
    os._exit(0)  # the library's destructors would wait for requests under way


def parameters(options: argparse.Namespace) -> Any:
    """Returns llama.cpp's parameters as llama-server's flags set them."""
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.n_ctx, params.n_parallel = options.ctx_size, options.parallel
    params.n_batch, params.n_ubatch = options.batch_size, options.ubatch_size
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads_batch
    params.cache_type_k = _kv_type(options.cache_type_k)
    params.cache_type_v = _kv_type(options.cache_type_v)
    params.flash_attn_type = getattr(
        xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{FLASH_ATTENTION[options.flash_attn]}"
    )
    params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{options.load_mode.upper()}")
    params.no_extra_bufts = options.no_repack
    params.cache_ram_mib, params.n_ctx_checkpoints = options.cache_ram, options.ctx_checkpoints
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.use_jinja, params.prefill_assistant = True, False
    params.ui, params.offline, params.fit_params = False, True, False
    sampling = params.sampling
    sampling.temp, sampling.top_k = options.temp, options.top_k
    sampling.top_p, sampling.min_p = options.top_p, options.min_p
    return params


def _kv_type(name: str) -> Any:
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("--model", "--alias", "--host", "--cache-type-k", "--cache-type-v", "--load-mode"):
        parser.add_argument(flag, required=True)
    for flag in (
        "--ctx-size", "--parallel", "--batch-size", "--ubatch-size", "--threads", "--threads-batch", "--cache-ram",
        "--ctx-checkpoints", "--top-k",
    ):  # fmt: skip
        parser.add_argument(flag, type=int, required=True)
    for flag in ("--temp", "--top-p", "--min-p"):
        parser.add_argument(flag, type=float, required=True)
    parser.add_argument("--flash-attn", choices=FLASH_ATTENTION, default="auto")
    parser.add_argument("--reasoning-format", choices=["none"], required=True)
    for flag in ("--jinja", "--no-prefill-assistant", "--no-ui", "--no-repack", "--offline"):
        parser.add_argument(flag, action="store_true")
    return parser


if __name__ == "__main__":
    # Blocked before any thread starts, so that none of the library's takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1:])
