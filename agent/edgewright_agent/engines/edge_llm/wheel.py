"""The wheel tensorrt-edgellm, read without starting it: which boards its native payloads are for.

Read in version 0.11.0: `tensorrt_edgellm/_native/variants.json` has a row per payload, and its `select.py` takes a row
only if Python, processor, GPU, TensorRT and the release of Jetson Linux all fit. Another JetPack gets an error at the
first start, after the checkpoint was sent; so it is said before.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from edgewright_agent.runtime.jetson_linux import jetson_linux

COMMAND_VARIABLE = "EDGEWRIGHT_EDGE_LLM"
COMMAND = "tensorrt-edgellm-serve"
KNOWN_VERSION = (
    "0.11"  # whose command line, cache and HTTP the agent knows; all of them are named experimental
)
VARIANTS = "tensorrt_edgellm/_native/variants.json"
NAMED_BY_RELEASE = "l4t"  # rows for Jetsons; others name a device's model
JETPACK_PACKAGES = Path("/usr/lib/python3/dist-packages")  # where JetPack puts TensorRT's Python package


@dataclass(frozen=True)
class Payload:
    """One row: what it was built for."""

    name: str  # such as "jetson-orin-jp72-cu13-sm87"
    python: str  # such as "cp312"
    machine: str
    compute_capability: str  # such as "8.7"
    releases: tuple[str, ...]  # of Jetson Linux, such as "39.2"; empty for boards that are no Jetson


@dataclass(frozen=True)
class Wheel:
    """An installed wheel."""

    version: str
    python: str  # of the environment it is installed in
    environment: Path  # that folder
    payloads: tuple[Payload, ...]
    tensorrt: str  # the version of its Python package, without which no engine is built; "" if absent

    @property
    def interpreter(self) -> Path:
        """The Python that the wheel is installed in."""
        return self.environment / "bin" / "python"


def named_command() -> str:
    """Returns the command that the user names, or the wheel's own."""
    return os.environ.get(COMMAND_VARIABLE) or COMMAND


def find_wheel() -> Wheel | None:
    """Returns the wheel whose command the user names or that is on the PATH, also by a link; None if there is none.

    Raises OSError or ValueError for a wheel that can't be read.
    """
    command = shutil.which(named_command())
    if command is None:
        return None
    environment = Path(command).resolve().parent.parent
    for variants in sorted(environment.glob(f"lib/python3*/site-packages/{VARIANTS}")):
        return _read(environment, variants)
    return None


def problem_here() -> str | None:
    """Returns why no TensorRT Edge-LLM can run on this machine, in a sentence without its end; None if one can.

    The GPU is left to the wheel, which asks CUDA: the payloads of one Jetson Linux differ in nothing else.
    """
    try:
        wheel = find_wheel()
    except (OSError, ValueError) as error:
        return f"the wheel tensorrt-edgellm can't be read: {error}"
    if wheel is None:
        return (
            f"{named_command()} is no command of the wheel tensorrt-edgellm: install it with its extra `server` in an "
            f"environment of its own and name its {COMMAND} in {COMMAND_VARIABLE}"
        )
    why = complaint(wheel, platform.machine(), None, jetson_linux())
    return None if why is None else f"tensorrt-edgellm {wheel.version} can't run here: {why}"


def complaint(
    wheel: Wheel, machine: str, compute_capability: str | None, jetson_linux: str | None
) -> str | None:
    """Returns why the wheel can't run on a board, in a sentence; None if it can.

    A `compute_capability` of None is not known.
    """
    if not wheel.version.startswith(f"{KNOWN_VERSION}."):
        return f"this agent knows the command line and HTTP of {KNOWN_VERSION}"
    of_python = [row for row in wheel.payloads if (row.python, row.machine) == (wheel.python, machine)]
    if not of_python:
        known = ", ".join(sorted({f"{row.python} on {row.machine}" for row in wheel.payloads}))
        return f"it is for {known}, and this is {wheel.python} on {machine}"
    of_gpu = [row for row in of_python if compute_capability in (None, row.compute_capability)]
    if not of_gpu:
        known = ", ".join(sorted({row.compute_capability for row in of_python}))
        return f"it has code for compute capability {known}, and this GPU is {compute_capability}"
    if not _fit_release(of_gpu, jetson_linux):
        known = ", ".join(sorted({release for row in of_gpu for release in row.releases}))
        return f"it is for Jetson Linux {known}, and this is {jetson_linux or 'another system'}"
    if not wheel.tensorrt:
        return "TensorRT's Python package is not in its environment"
    return None


def _fit_release(rows: Sequence[Payload], jetson_linux: str | None) -> bool:
    """Whether a row is for this release: "39.2.1" is one of 39.2. Rows that name a model are left to the wheel."""
    short = ".".join((jetson_linux or "").split(".")[:2])
    return any(not row.releases or short in row.releases for row in rows)


def _read(environment: Path, variants: Path) -> Wheel:
    document = json.loads(variants.read_text(encoding="utf-8"))
    try:
        payloads = tuple(
            Payload(
                str(row["variant_id"]),
                str(row["python_abi"]),
                str(row["cpu_arch"]),
                f"{int(row['gpu_sm']) // 10}.{int(row['gpu_sm']) % 10}",
                _releases(row["platform_probe_source"], row["platform_probe_values"]),
            )
            for row in document["variants"]
        )
        version = str(document["package_version"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{variants} lacks {error}") from error
    packages = variants.parent.parent.parent
    python = packages.parent.name.replace("python", "cp").replace(".", "")
    folders = [packages, *([JETPACK_PACKAGES] if _sees_system(environment) else [])]
    return Wheel(version, python, environment, payloads, next(_tensorrt_versions(folders), ""))


def _tensorrt_versions(folders: Sequence[Path]) -> Iterator[str]:
    """Yields the version of TensorRT's Python package in each folder that has it."""
    for folder in folders:
        if (folder / "tensorrt").is_dir():
            yield next(map(_version_of, sorted(folder.glob("tensorrt-*.dist-info/METADATA"))), "unknown")


def _version_of(metadata: Path) -> str:
    return str(HeaderParser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)["Version"])


def _sees_system(environment: Path) -> bool:
    """Whether the environment was made with --system-site-packages."""
    try:
        settings = (environment / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^include-system-site-packages *= *true", settings, re.MULTILINE) is not None


def _releases(source: str, values: Sequence[str]) -> tuple[str, ...]:
    if source != NAMED_BY_RELEASE:
        return ()
    return tuple(re.sub(r"^R", "", str(value)) for value in values)
