"""llama.cpp's server for a proof: the one that serves, with the engine's own flags but for what they round."""

from __future__ import annotations

import socket as sockets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.die_with_parent import tethered
from edgewright.errors import OutsideError
from edgewright_agent.engines.llama_cpp.build import find_server
from edgewright_agent.engines.llama_cpp.launch import flags, own_environment
from edgewright_agent.engines.protocol.launch import EngineLimits
from edgewright_builder.fit.proof.tiny_config import POSITIONS
from edgewright_builder.run.resumable_run import last_line

if TYPE_CHECKING:
    import httpx

REQUESTS = 2  # at once
# Flash attention reads keys and values in float16. Slices are shorter than the prompts, so that these take several.
EXACT = {
    "--cache-type-k": "f32", "--cache-type-v": "f32", "--flash-attn": "off",
    "--batch-size": "70", "--ubatch-size": "70",
}  # fmt: skip
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # which multiplies float32 in fewer bits
READY_SECONDS = 120.0
ANSWER_SECONDS = 300.0
POLL_SECONDS = 0.05


@contextmanager
def running(model: Path, scratch: Path) -> Iterator[httpx.Client]:
    """Yields a client of a server that has loaded `model`. Raises OutsideError where it does not load."""
    import httpx

    socket, log_file, server = scratch / "http.sock", scratch / "server.log", find_server()
    limits = EngineLimits(POSITIONS, REQUESTS, threads=1)
    options = flags(server, model, "proof", limits, socket) + [
        word for pair in EXACT.items() for word in pair
    ]
    with (
        log_file.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [*tethered(), *server.command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=own_environment() | NO_GPU,
        ) as process,
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=ANSWER_SECONDS
        ) as http,
    ):  # fmt: skip
        try:
            _wait(process, socket, http, log_file)
            yield http
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], socket: Path, http: httpx.Client, log_file: Path) -> None:
    """Returns once the server answers."""
    deadline_seconds = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline_seconds and process.poll() is None:
        if _listens(socket) and http.get("/health").is_success:
            return
        time.sleep(POLL_SECONDS)
    raise OutsideError(
        f"llama-server did not load the tiny model ({last_line(log_file)}); use a newer one, and name it in "
        "EDGEWRIGHT_LLAMA_SERVER."
    )


def _listens(path: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0
