"""What an agent costs a board that asks nothing of it: `python benchmarks/agent_idle.py [--starts 7] [--openai]`.

Starts the agent several times, with an empty store, telemetry at its 10 Hz and mutual TLS as in the field, and prints
how long it takes until it says that it serves, what it holds in memory a while later, and its share of one core.
RSS counts pages of files shared with every other Python program in full, PSS by share; private memory is its alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgewright_builder.keys.credentials import create_credentials

SETTLE_SECONDS = 3.0
KINDS = ("Rss", "Pss", "Private_Dirty")


@dataclass(frozen=True)
class Start:
    """One start of the agent."""

    ready_seconds: float
    start_cpu_seconds: float
    memory_mib: dict[str, float]
    idle_cpu_share: float  # of one core


def memory_mib(pid: int) -> dict[str, float]:
    """As the kernel sums it up (proc_pid_smaps(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = {kind: re.search(rf"^{kind}:\s+(\d+)", text, re.MULTILINE) for kind in KINDS}
    return {kind: int(match[1]) / 1024 for kind, match in found.items() if match}


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return times.user + times.system


def one_start(folder: Path, idle_seconds: float, options: Sequence[str]) -> Start:
    """Starts an agent, waits, and ends it."""
    keys = folder / "keys"
    command = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "raspberry-pi-5-8gb",
        "--store", str(folder / "store"), "--listen", "localhost:0", "--trust", str(keys / "release.pub"),
        "--tls-cert", str(keys / "agent.pem"), "--tls-key", str(keys / "agent.key"), "--tls-ca", str(keys / "ca.pem"),
        *options,
    ]  # fmt: skip
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("serving on "), "the agent did not start"
        ready_seconds = time.monotonic() - begin
        process = psutil.Process(child.pid)
        start_cpu_seconds = cpu_seconds(process)
        time.sleep(SETTLE_SECONDS)
        before = cpu_seconds(process)
        time.sleep(idle_seconds)
        share = (cpu_seconds(process) - before) / idle_seconds
        memory = memory_mib(child.pid)
        child.terminate()
    return Start(ready_seconds, start_cpu_seconds, memory, share)


def line(name: str, unit: str, values: Sequence[float], limit: str = "") -> str:
    """Median, smallest and largest."""
    spread = f"({min(values):.2f} to {max(values):.2f})"
    return f"{name:24} {statistics.median(values):7.2f} {unit:4} {spread:18} {limit}"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.add_argument("--openai", action="store_true", help="with the OpenAI-compatible server")
    options = parser.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"{platform.machine()}, {psutil.cpu_count()} cores, load {load}, Python {platform.python_version()}; "
        f"{options.starts} starts: median (smallest to largest)"
    )
    openai = ("--openai", "127.0.0.1:0") if options.openai else ()
    with tempfile.TemporaryDirectory() as folder:
        create_credentials(Path(folder) / "keys")
        starts = [one_start(Path(folder), options.idle_seconds, openai) for _ in range(options.starts)]
    print(line("ready after", "s", [start.ready_seconds for start in starts], "at most 1"))
    print(line("processor time to ready", "s", [start.start_cpu_seconds for start in starts]))
    for kind in KINDS:
        limit = "at most 60" if kind == "Rss" else ""
        print(line(kind, "MiB", [start.memory_mib[kind] for start in starts], limit))
    print(line("idle, of one core", "%", [100 * start.idle_cpu_share for start in starts], "at most 1"))


if __name__ == "__main__":
    main()
