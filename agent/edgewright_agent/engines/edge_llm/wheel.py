"""The wheel tensorrt-edgellm, read without starting it: which boards its native payloads are for.

Read in version 0.11.0: `tensorrt_edgellm/_native/variants.json` has a row per payload, and its `select.py` takes a row
only if Python, processor, GPU, TensorRT and the release of Jetson Linux all fit. Another JetPack gets an error at the
first start, after the checkpoint was sent; so it is said before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_VARIABLE = "EDGEWRIGHT_EDGE_LLM"
COMMAND = "tensorrt-edgellm-serve"
VARIANTS = "tensorrt_edgellm/_native/variants.json"
NAMED_BY_RELEASE = "l4t"  # rows for Jetsons; others name a device's model


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
    payloads: tuple[Payload, ...]
    has_tensorrt: bool  # its Python package, without which no engine is built


def find_wheel() -> Wheel | None:
    """Returns the wheel whose command the user names or that is on the PATH; None if there is none.

    Raises OSError or ValueError for a wheel that can't be read.
    """
    command = shutil.which(os.environ.get(COMMAND_VARIABLE) or COMMAND)
    if command is None:
        return None
    environment = Path(command).absolute().parent.parent
    for variants in sorted(environment.glob(f"lib/python3*/site-packages/{VARIANTS}")):
        return _read(variants)
    return None


def complaint(wheel: Wheel, machine: str, compute_capability: str, jetson_linux: str | None) -> str | None:
    """Returns why the wheel can't run on a board, in a sentence; None if it can."""
    of_python = [row for row in wheel.payloads if (row.python, row.machine) == (wheel.python, machine)]
    if not of_python:
        known = ", ".join(sorted({f"{row.python} on {row.machine}" for row in wheel.payloads}))
        return f"it is for {known}, and this is {wheel.python} on {machine}"
    of_gpu = [row for row in of_python if row.compute_capability == compute_capability]
    if not of_gpu:
        known = ", ".join(sorted({row.compute_capability for row in of_python}))
        return f"it has code for compute capability {known}, and this GPU is {compute_capability}"
    if not _fit_release(of_gpu, jetson_linux):
        known = ", ".join(sorted({release for row in of_gpu for release in row.releases}))
        return f"it is for Jetson Linux {known}, and this is {jetson_linux or 'another system'}"
    if not wheel.has_tensorrt:
        return "TensorRT's Python package is not in its environment"
    return None


def _fit_release(rows: Sequence[Payload], jetson_linux: str | None) -> bool:
    """Whether a row is for this release: "39.2.1" is one of 39.2. Rows that name a model are left to the wheel."""
    short = ".".join((jetson_linux or "").split(".")[:2])
    return any(not row.releases or short in row.releases for row in rows)


def _read(variants: Path) -> Wheel:
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
    return Wheel(version, python, payloads, (packages / "tensorrt").is_dir())


def _releases(source: str, values: Sequence[str]) -> tuple[str, ...]:
    if source != NAMED_BY_RELEASE:
        return ()
    return tuple(re.sub(r"^R", "", str(value)) for value in values)
