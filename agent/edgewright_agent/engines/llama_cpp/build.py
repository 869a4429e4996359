"""Which llama.cpp server this board has: the user's own binary, or the one in the Python package xllamacpp."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

COMMAND_VARIABLE = "EDGEWRIGHT_LLAMA_SERVER"
PACKAGE = "xllamacpp"  # its version ends with llama.cpp's build number
PACKAGE_SERVER = Path(__file__).with_name("package_server.py")
PACKAGE_BUILD_MIN = 11549  # the oldest one that the tests ran with
HELP_SECONDS = 30.0  # a CUDA build starts CUDA before it prints its help
# Without these the engine could not keep its promises; the newest of them came in September 2025.
NEEDED_FLAGS = (
    "--alias", "--batch-size", "--cache-type-k", "--cache-type-v", "--ctx-size", "--gpu-layers", "--host", "--jinja",
    "--min-p", "--model", "--no-prefill-assistant", "--parallel", "--reasoning-format", "--temp", "--threads",
    "--threads-batch", "--top-k", "--top-p", "--ubatch-size",
)  # fmt: skip
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_VERSION = re.compile(r"^version: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class LlamaServer:
    """A llama.cpp server that can be started here, or the reason why not."""

    command: tuple[str, ...]  # to which flags are added
    version: str  # llama.cpp's build number; "" if unknown
    flags: frozenset[str]  # those that its help lists
    has_gpu: bool  # built by the user, perhaps with CUDA: every layer goes to a GPU if there is one
    problem: str = ""  # why it can't serve

    def has(self, flag: str) -> bool:
        """Whether the server knows a flag."""
        return flag in self.flags


def find_server() -> LlamaServer:
    """Returns the server that the user names, else the package's. Starts the user's once, for its help."""
    named = os.environ.get(COMMAND_VARIABLE)
    return _of_package() if not named else _of_binary(named)


def _of_package() -> LlamaServer:
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        problem = (
            f"there is no llama.cpp server: name your own build in {COMMAND_VARIABLE}, "
            "or pip install 'edgewright[llama]'"
        )
        return LlamaServer((), "", frozenset(), has_gpu=False, problem=problem)
    build = version.rpartition(".")[2]
    problem = ""
    if not build.isdigit() or int(build) < PACKAGE_BUILD_MIN:
        problem = f"{PACKAGE} {version} is too old: it must bring llama.cpp b{PACKAGE_BUILD_MIN} or newer"
    command = (sys.executable, "-I", str(PACKAGE_SERVER))  # isolated: the engine imports nothing of the agent
    return LlamaServer(command, build, frozenset(), has_gpu=False, problem=problem)


def _of_binary(named: str) -> LlamaServer:
    path = shutil.which(named)
    if path is None:
        problem = f"{named}, which {COMMAND_VARIABLE} names, is no executable"
        return LlamaServer((), "", frozenset(), has_gpu=True, problem=problem)
    try:
        state = Path(path).stat()
        return _asked(path, state.st_mtime_ns, state.st_size)
    except (OSError, subprocess.SubprocessError) as error:
        return LlamaServer((path,), "", frozenset(), has_gpu=True, problem=f"{path} does not start: {error}")


@functools.lru_cache(maxsize=4)
def _asked(path: str, modified_ns: int, size_bytes: int) -> LlamaServer:
    """Asks a binary for its version and flags; again only once the file has changed.

    Raises OSError or SubprocessError, which are not kept: the board may have been out of memory or time.
    """
    told, listed = _output(path, "--version"), _output(path, "--help")
    version = match[1] if (match := _VERSION.search(told)) else ""
    flags = frozenset(_FLAG.findall(listed))
    return LlamaServer(
        (path,), version, flags, has_gpu=True, problem=_complaint(path, version, flags, listed)
    )


def _complaint(path: str, version: str, flags: frozenset[str], listed: str) -> str:
    name = f"{path} (llama.cpp b{version})" if version else path
    if "--ctx-size" not in flags:
        return f"{path} is no llama-server: its help lists no --ctx-size"
    missing = [flag for flag in NEEDED_FLAGS if flag not in flags]
    if missing:
        return f"{name} is too old: it does not know {missing[0]}; build a newer llama.cpp"
    if "unix socket" not in listed.lower():
        return f"{name} is too old: it can't listen on a Unix socket; build a newer llama.cpp"
    return ""


def _output(path: str, flag: str) -> str:
    done = subprocess.run(
        [path, flag], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=HELP_SECONDS, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr
