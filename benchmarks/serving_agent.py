"""A real agent in a process of its own, for measurements: gRPC and OpenAI API on free local ports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MIB = 1024 * 1024


def fake_fields(name: str, context_tokens: int) -> dict[str, Any]:
    """What the manifest says of a release for the fake engine."""
    return {
        "name": name, "version": "1", "device_profiles": ("this-host",), "engine": {"kind": "fake"},
        "model": {
            "architecture": "none", "parameters": 1, "layers": 1, "hidden_size": 1, "vocab_size": 1,
            "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
        },
        "limits": {"context_tokens": context_tokens},
        "memory": {"budget_bytes": MIB, "predicted_peak_bytes": MIB, "error_bytes": 0, "calibrated_on": "nothing"},
    }  # fmt: skip


@dataclass(frozen=True)
class Agent:
    """Where it answers, and its process."""

    grpc: str  # HOST:PORT
    openai_url: str  # http://HOST:PORT
    process: psutil.Process


@contextmanager
def running_agent(
    store: Path, credentials: Path, *options: str, knows_certificates: bool = False
) -> Iterator[Agent]:
    """An agent that has said it serves; it ends with the block. gRPC has no TLS, unless it is to know certificates."""
    names = {"--tls-cert": "agent.pem", "--tls-key": "agent.key", "--tls-ca": "ca.pem"}
    tls = [word for option, name in names.items() for word in (option, str(credentials / name))]
    command = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(store), "--listen", "127.0.0.1:0", "--openai", "127.0.0.1:0", "--probation", "0",
        "--trust", str(credentials / "release.pub"), *(tls if knows_certificates else ["--insecure"]), *options,
    ]  # fmt: skip
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            grpc, openai_url = _addresses(process.stdout)
            yield Agent(grpc, openai_url, psutil.Process(process.pid))
        finally:
            process.terminate()


def _addresses(output: Iterable[str]) -> tuple[str, str]:
    """Where an agent says it serves: gRPC, OpenAI."""
    openai_url, said = "", []
    for line in output:
        said.append(line)
        if line.startswith("OpenAI"):
            openai_url = line[line.index("http://") :].split()[0].removesuffix("/v1")
        if line.startswith("serving on "):
            return line.removeprefix("serving on ").strip(), openai_url
    raise AssertionError("the agent ended before it served: " + "".join(said))
