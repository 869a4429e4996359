"""Builds what a board is made of, and keeps it: only what is missing or outdated is made again."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from virtual_board import wheels
from virtual_board.debian import build_root, unpack_kernel
from virtual_board.image import build_image
from virtual_board.initrd import build_initrd
from virtual_board.needs import check_needs
from virtual_board.settings import PYTHON, SOURCES, Parts, cache_folder

PRODUCT = ("pyproject.toml", "constraints.txt", "agent", "sdk", "device_profiles")
OURS = ("guest", "image.py", "power_cuts/store_check.py", "settings.py")
ON_DISK = (*PRODUCT, *(f"scripts/virtual_board/{name}" for name in OURS))


def build(say: Callable[[str], None]) -> Parts:
    """Returns the parts of a board with this source tree's agent. Raises NeedError."""
    check_needs()
    parts = Parts(cache_folder())
    with locked(parts):
        _build(parts, say)
    return parts


@contextmanager
def locked(parts: Parts) -> Iterator[None]:
    """Makes the folder and holds its lock: a second build waits, and then finds everything."""
    parts.folder.mkdir(parents=True, exist_ok=True)
    with (parts.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(parts: Parts, say: Callable[[str], None]) -> None:
    _once(
        parts.root,
        "Debian for arm64, installed under emulation (minutes, once)",
        lambda: build_root(parts),
        say,
    )
    _once(parts.kernel, "its kernel", lambda: unpack_kernel(parts), say)
    _once(parts.initrd, "an initrd", lambda: build_initrd(parts), say)
    _of(
        sources_digest(PRODUCT),
        parts.packages,
        "the agent's aarch64 wheels",
        lambda: wheels.install(parts.packages, PYTHON),
        say,
    )
    drivers = "".join(sorted(file.name for file in (parts.folder / "sensors").glob("*.ko")))
    _of(sources_digest(ON_DISK) + drivers, parts.image, "the board's disk", lambda: build_image(parts), say)


def sources_digest(names: Sequence[str]) -> str:
    """Returns a digest of these files and folders of this tree."""
    digest = hashlib.sha256()
    for name in names:
        path = SOURCES / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(SOURCES)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _once(target: Path, what: str, make: Callable[[], None], say: Callable[[str], None]) -> None:
    if not target.exists():
        _timed(what, make, say)


def _of(sources: str, target: Path, what: str, make: Callable[[], None], say: Callable[[str], None]) -> None:
    """Makes it unless it is there, made of these sources."""
    stamp = target.with_name(f"{target.name}.sources")
    if not target.exists() or not stamp.exists() or stamp.read_text(encoding="ascii") != sources:
        _timed(what, make, say)
        stamp.write_text(sources, encoding="ascii")


def _timed(what: str, make: Callable[[], None], say: Callable[[str], None]) -> None:
    say(f"building {what}")
    began = time.monotonic()
    make()
    say(f"  {time.monotonic() - began:.0f} s")
