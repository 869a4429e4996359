"""A release made on the host says its golden prompt on ARM too: with dot products, and without them in float32.

Python and the wheels are a board's; QEMU's user mode runs them without a board.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgewright.manifest import GoldenPrompt
from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.local_engine.engine import open_arithmetics
from edgewright_builder.local_engine.golden_prompt import golden_prompt
from tests.support.engine_releases import tiny_onnx_release

COMMAND = Path(__file__).parent.parent.parent / "scripts/virtual-board"
PROMPTS = ("the cat sat on", "on the other hand", "in an inn")

pytestmark = [
    pytest.mark.board,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not all(shutil.which(name) for name in ("qemu-aarch64-static", "mmdebstrap", "arch-test")),
        reason="sudo apt install qemu-user-static mmdebstrap arch-test",
    ),
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, tree = tiny_onnx_release(tmp_path_factory.mktemp("tiny")), tmp_path_factory.mktemp("int8")
    export_onnx(made.tree / "checkpoint", 4, tree, block_size=32)
    engines = open_arithmetics(tree, made.manifest, tmp_path_factory.mktemp("scratch"))
    golden = GoldenPrompt.model_validate(golden_prompt(engines, PROMPTS))
    manifest = made.manifest.model_copy(update={"golden": golden})
    (tree / "manifest.json").write_bytes(manifest.to_bytes())
    return tree


@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_the_board_accepts_what_the_host_made(artifact: Path, cpu: str, python: str) -> None:
    done = subprocess.run(
        [COMMAND, "golden", artifact, "--cpu", cpu, "--python", python],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Python {python}." in done.stdout
    assert "aarch64" in done.stdout
