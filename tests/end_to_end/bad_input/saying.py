"""What a command must say of bad input, and builds that are given some."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.tiny_build import command, environment

INPUT, REFUSED, OUTSIDE = 2, 1, 3


def assert_says(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on standard error, with these parts, and the exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.startswith(("edgewright: ", "edgewright-agent: "))
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def variant(recipe: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The tiny build's recipe in another folder, changed in one thing."""
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["data"]["file"] = str(recipe.with_name("data.jsonl"))
    values["evaluate"]["tasks"] = [str(recipe.with_name("quiz.jsonl"))]
    change(values)
    folder.mkdir(exist_ok=True)
    (folder / "credentials").symlink_to(recipe.parent / "credentials")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def build(recipe: Path, run: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    words = command(recipe, run, *more)
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), **options)


def copied_model(recipe: Path, folder: Path) -> Path:
    return Path(shutil.copytree(recipe.parent / "model", folder / "model"))
