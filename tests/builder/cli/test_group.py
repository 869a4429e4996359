"""The command line imports what a command needs and no more, and still tells all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

import edgewright_builder
from edgewright_builder.cli.group import COMMANDS_OF, load_commands
from edgewright_builder.cli.main import app

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "grpc",
    "cryptography",
    "huggingface_hub",
    "onnx",
    "peft",
    "optuna",
)


def imported_by(*words: str) -> list[str]:
    """Of the heavy libraries, those that a command imports."""
    code = (
        "import json, sys; from edgewright_builder.cli.main import app\n"
        f"try: app({list(words)!r})\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("module", COMMANDS_OF)
def test_a_module_registers_the_commands_that_are_said_to_be_in_it(module: str) -> None:
    assert tuple(load_commands(module)) == COMMANDS_OF[module]


def test_no_module_of_commands_is_forgotten() -> None:
    folder = Path(edgewright_builder.__file__).parent / "cli"
    names = [
        path.stem for path in folder.glob("*.py") if path.stem not in ("measure", "__main__")
    ]  # device's part
    assert {
        name for name in names if hasattr(import_module(f"edgewright_builder.cli.{name}"), "register")
    } == set(COMMANDS_OF)


def test_help_lists_every_command_with_what_it_does() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    for module in COMMANDS_OF:
        for name, command in load_commands(module).items():
            line = next(
                line for line in result.stdout.splitlines() if line.lstrip("│ ").startswith(f"{name} ")
            )
            assert command.get_short_help_str(20).rstrip(".") in line


def test_a_misspelt_command_is_told_its_neighbour() -> None:
    result = CliRunner().invoke(app, ["generat"])
    assert result.exit_code == 2
    assert "Did you mean 'generate'?" in result.output


def test_check_needs_none_of_the_heavy_libraries() -> None:
    assert imported_by("check", "llama-3.2-3b", "--device", "jetson-orin-nano-8gb") == []


def test_plan_needs_none_either() -> None:
    assert imported_by("plan", "smollm2-1.7b", "--device", "jetson-orin-nano-8gb", "--budget", "2GiB") == []


def test_help_and_commands_for_boards_do_not_import_torch() -> None:
    assert not {"torch", "transformers"} & set(imported_by("--help"))
    assert not {"torch", "transformers"} & set(imported_by("status", "--help"))
