"""The fake engine of the tests, in our own worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.protocol.launch import EngineInfo, EngineLimits, Format, Launch
from edgewright_agent.engines.worker_launch import worker_launch

KIND = "fake"
FORMAT: Format = "any"


def info() -> EngineInfo:
    """Returns that it can run where tests ask for it, and nowhere else."""
    on = os.environ.get("EDGEWRIGHT_FAKE_ENGINE") == "1"
    return EngineInfo(KIND, "1", on, "for tests" if on else "for tests: set EDGEWRIGHT_FAKE_ENGINE=1")


def launch(
    tree: Path, manifest: Manifest, limits: EngineLimits, socket: Path, adapter: Path | None
) -> Launch:
    """Returns how its worker is started."""
    return worker_launch(sys.executable, KIND, tree, manifest, limits, socket, adapter)
