"""Installs the stand-in as pip installs the wheel: an environment with an interpreter, packages and commands."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from edgewright_agent.engines.edge_llm.wheel import COMMAND, VARIANTS

VERSION = "0.11.0"
TENSORRT = "10.16.0.72"
ROOT = Path(__file__).parents[3]
ENTRY_POINTS = f"""[console_scripts]
tensorrt-edgellm-build = experimental.builder.cli:main
{COMMAND} = experimental.server.cli:main
"""


def this_python() -> str:
    """The interpreter's name in a wheel's rows, such as cp312."""
    return f"cp{sys.version_info[0]}{sys.version_info[1]}"


def install_edge_llm(folder: Path, *, version: str = VERSION, tensorrt: bool = True, **row: Any) -> Path:
    """Makes the environment in `folder`, with a payload for this machine unless `row` says otherwise.

    Returns its command.
    """
    packages = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    payload = {
        "variant_id": "stub", "platform_probe_source": "device-model", "platform_probe_values": ["this machine"],
        "gpu_sm": 87, "python_abi": this_python(), "cpu_arch": platform.machine(), **row,
    }  # fmt: skip
    _write(packages / VARIANTS, json.dumps({"package_version": version, "variants": [payload]}))
    info = packages / f"tensorrt_edgellm-{version}.dist-info"
    _write(info / "METADATA", f"Metadata-Version: 2.2\nName: tensorrt-edgellm\nVersion: {version}\n")
    _write(info / "entry_points.txt", ENTRY_POINTS)
    if tensorrt:
        _write(packages / "tensorrt/__init__.py", "")
        _write(packages / f"tensorrt-{TENSORRT}.dist-info/METADATA", f"Name: tensorrt\nVersion: {TENSORRT}\n")
    stub = "tests.support.edge_llm_stub"
    _write(packages / "experimental/server/cli.py", f"from {stub}.server import main\n")
    _write(
        packages / "experimental/server/runtime/engine_build.py",
        f"from {stub}.build import BuildOptions, prepare_model\n",
    )
    libraries = [path for path in sys.path if path.endswith("site-packages")]  # uvicorn and pydantic
    _write(packages / "tests.pth", "\n".join([*libraries, str(ROOT)]))
    _write(folder / "pyvenv.cfg", f"home = {Path(sys.base_prefix) / 'bin'}\n")
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/python").symlink_to(
        Path(sys.base_prefix) / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    )
    command = folder / "bin" / COMMAND
    _write(command, "#!/bin/sh\n")
    command.chmod(0o755)
    return command


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
