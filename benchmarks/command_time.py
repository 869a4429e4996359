"""How long the host's quick commands take, from the shell's point of view.

    python benchmarks/command_time.py [--rounds 9]

Each command runs in a process of its own, all of them in turn, round after round; a Python that does nothing is the
peer. Prints medians of wall clock and of user + system CPU seconds, which a loaded machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

EDGEWRIGHT = str(Path(sys.executable).with_name("edgewright"))
BOARD = ("--device", "jetson-orin-nano-8gb")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "check llama-3.2-3b": [EDGEWRIGHT, "check", "llama-3.2-3b", *BOARD],
    "check llama-3.1-8b (does not fit)": [EDGEWRIGHT, "check", "llama-3.1-8b", *BOARD, "--budget", "4GiB"],
    "plan llama-3.2-3b": [EDGEWRIGHT, "plan", "llama-3.2-3b", *BOARD, "--budget", "2.5GiB"],
    "check --all --markdown": [EDGEWRIGHT, "check", "--all", "--markdown"],
    "profiles list": [EDGEWRIGHT, "profiles", "list"],
    "--help": [EDGEWRIGHT, "--help"],
}


def main() -> None:
    """Times every command in turn and prints the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            times[name].append(timed(command))
    print("| command | wall s | worst wall s | CPU s |")
    print("|---|--:|--:|--:|")
    for name, found in times.items():
        walls, cpus = zip(*found, strict=True)
        print(
            f"| {name} | {statistics.median(walls):.2f} | {max(walls):.2f} | {statistics.median(cpus):.2f} |"
        )


def timed(command: list[str]) -> tuple[float, float]:
    """(wall clock, user + system) seconds of one run."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall, cpu


if __name__ == "__main__":
    main()
