"""The engine's process: loads the model, then opens the socket."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import signal
from pathlib import Path

import uvicorn

from edgewright_agent.engine_worker.http.app import WorkerSettings, make_app
from edgewright_agent.engine_worker.model.backend import Backend


def main() -> None:
    """Serves until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["onnxruntime-genai", "fake"])
    parser.add_argument("--engine-folder", type=Path, required=True)
    parser.add_argument("--tokenizer-folder", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="LoRA adapter to begin with")
    parser.add_argument("--model", required=True, help="name of the model in the API")
    parser.add_argument("--context-tokens", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=1, help="whole contexts the KV cache holds")
    parser.add_argument("--sequences", type=int, default=8, help="requests that share the KV cache")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument(
        "--spare-bytes", type=int, help="of memory beyond the predicted peak; default: no limit"
    )
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # the agent asks where it hangs before it ends it
    backend = _load(options)
    if options.adapter is not None:
        backend.use_adapter(options.adapter)
    app = make_app(backend, WorkerSettings(options.model, options.sequences, options.spare_bytes))
    _let_the_model_go_first()
    uvicorn.run(
        app,
        uds=str(options.socket),
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )


def _let_the_model_go_first() -> None:
    """Has this thread wait for a pause of the model's threads when it wakes, and not take their processor (sched(7)).

    Those run already. Threads that prepare requests are started later, and inherit it.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it: tokens come a little slower then
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _load(options: argparse.Namespace) -> Backend:
    if options.kind == "fake":
        from edgewright_agent.engine_worker.model.fake import FakeBackend

        return FakeBackend(options.engine_folder, options.context_tokens, options.concurrency)
    # ONNX Runtime sends usage data unless told otherwise before it is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from edgewright_agent.engine_worker.model.onnx import OnnxBackend

    return OnnxBackend(
        options.engine_folder,
        options.tokenizer_folder,
        options.context_tokens,
        options.threads,
        options.concurrency,
    )


if __name__ == "__main__":
    main()
