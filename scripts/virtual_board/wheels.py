"""The aarch64 wheels of what a board installs, by the host's pip: nothing is compiled, and nothing runs emulated."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from virtual_board.needs import NeedError
from virtual_board.settings import SOURCES

GLIBCS = {"3.10": 35, "3.11": 36, "3.12": 39, "3.13": 41}  # of JetPack 6, Debian 12, JetPack 7, Debian 13
OLDEST_GLIBC = 17
CONSOLE = "#!/opt/edgewright/bin/python3"


def install(target: Path, python: str, requirement: str = "[onnx]") -> None:
    """Installs this source tree and its aarch64 wheels into `target`, as `pip install '.[onnx]'` does on the board."""
    part = target.with_name(f"part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    wheel = build_wheel(target.parent / "wheel")
    _pip(["install", "--target", str(part), *for_board(python), f"{wheel}{requirement}"])
    for script in (part / "bin").iterdir():
        lines = script.read_text(encoding="utf-8").splitlines(keepends=True)
        script.write_text("".join([f"{CONSOLE}\n", *lines[1:]]), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)


def missing_wheels(python: str, wheel: Path, requirement: str = "[onnx]") -> str:
    """Returns what pip says where `wheel` needs one for that Python that is missing; empty where all are there.

    Installs nothing.
    """
    try:
        _pip(["install", "--dry-run", "--target", "unused", *for_board(python), f"{wheel}{requirement}"])
    except NeedError as error:
        return str(error)
    return ""


def build_wheel(folder: Path) -> Path:
    """Returns the wheel of this source tree, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    _pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(SOURCES)])
    return next(folder.glob("*.whl"))


def for_board(python: str) -> list[str]:
    """Returns the options that make pip choose wheels of a board's Python and of its glibc, and no source."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBCS[python], OLDEST_GLIBC - 1, -1)]
    chosen = [f"--platform={name}" for name in (*platforms, "manylinux2014_aarch64")]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *chosen]


def _pip(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr[-300:]
        ]
        raise NeedError(f"pip has no wheel for the board: {' '.join(errors)}")
