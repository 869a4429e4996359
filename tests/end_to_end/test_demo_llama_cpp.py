"""`make demo ENGINE=llama.cpp` at tiny size: built, pushed to an agent, asked, measured and evaluated on llama.cpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.tiny_build import environment, write_inputs

ROOT = Path(__file__).parent.parent.parent


def write_recipe(folder: Path) -> Path:
    """The tiny recipe without what takes time, and without adapters, which llama.cpp does not take."""
    path = write_inputs(folder)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    del recipe["search"], recipe["serving"]["adapters"]
    recipe["hyperparameters"] = {"optimizer": "adam", "learning_rate": 1e-3, "lora_rank": 8}
    recipe["recover"] = {"steps": 2}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.mark.timeout(900)
def test_the_whole_road_runs_on_llama_cpp(tmp_path: Path) -> None:
    run = tmp_path / "demo-run"
    settings = {
        "ENGINE": "llama.cpp",
        "RUN": str(run),
        "RECIPE": str(write_recipe(tmp_path)),
        "BUDGET": "1GiB",
        "CONTEXT": "256",
        "PROBATION": "0",
        "PROMPTS": "What does sun do to water?",
        "BIN": str(Path(sys.executable).parent),
    }
    done = subprocess.run(
        [str(ROOT / "scripts" / "demo")],
        capture_output=True, text=True, check=False, env=environment() | settings, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "committed" in done.stdout
    files = sorted(path.name for path in (run / "build/artifact/engine").iterdir())
    assert files == ["model.gguf"]
    manifest = json.loads((run / "build/artifact/manifest.json").read_text(encoding="utf-8"))
    assert manifest["engine"]["kind"] == "llama.cpp"
    assert (run / "build/report.html").is_file()
    evaluated = json.loads((run / "build/device/eval.json").read_text(encoding="utf-8"))
    hosts = [result["host"] for result in evaluated["results"]]
    assert [host["difference"] for host in hosts] == [0.0], hosts
