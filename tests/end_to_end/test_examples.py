"""The shipped example with one's own data, built for real on SmolLM2-135M. `make demo` runs the other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.trust.keys import load_public_key
from edgewright_builder.artifact.artifact import verify_artifact
from tests.support.tiny_build import edgewright

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_with_own_data_builds(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    assert edgewright("keys", "create", str(credentials)).returncode == 0
    words = ["build", str(EXAMPLES / "own-data.yaml"), "--device", "this-host", "-o", str(tmp_path / "run")]
    done = edgewright(*words, "--credentials", str(credentials))
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = verify_artifact(
        tmp_path / "run" / "artifact", load_public_key(credentials / "release.pub")
    ).manifest
    assert manifest.model.layers == 27
    assert manifest.lineage["data_pairs"] > 10
