"""`scripts/demo`, the README's first command, on a run that is finished: with an agent that starts again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_build import Built, environment

ROOT = Path(__file__).parent.parent.parent


def demo(built: Built, run: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        "RUN": str(run),
        "RECIPE": str(built.recipe),
        "TASKS": str(built.recipe.parent / "quiz.jsonl"),
        "BUDGET": "1GiB",
        "CONTEXT": "256",
        "PROBATION": "0",
        "BIN": str(Path(sys.executable).parent),
    }
    return subprocess.run(
        [str(ROOT / "scripts" / "demo")],
        capture_output=True, text=True, check=False, env=environment() | settings, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_demo_runs_twice_in_a_row(built: Built, tmp_path: Path) -> None:
    run = tmp_path / "demo-run"
    shutil.copytree(built.run, run / "build")
    shutil.copytree(built.recipe.parent / "credentials", run / "credentials")
    for _ in range(2):
        done = demo(built, run)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "committed" in done.stdout
        assert (run / "build" / "report.html").is_file()
    second = json.loads((run / "build" / "device" / "push.json").read_text(encoding="utf-8"))
    assert second["sent_bytes"] == 0
