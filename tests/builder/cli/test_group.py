"""The command line imports what a command needs and no more, and still tells all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import edgewright_builder
from edgewright_builder.cli.group import COMMANDS, load_command
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

# Parts of a command too long for one file.
PARTS = {"host.__init__", "board.__init__", "board.rollout"}


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


def test_each_command_has_the_name_that_the_table_gives_it() -> None:
    for name in COMMANDS:
        assert load_command(name).name == name


def test_no_file_of_commands_is_forgotten() -> None:
    folder = Path(edgewright_builder.__file__).parent / "cli"
    named_after_a_command = {module.partition(":")[0] for module in COMMANDS.values()}
    files = {f"{path.parent.name}.{path.stem}" for path in folder.glob("*/*.py")}
    assert named_after_a_command <= files
    assert files - named_after_a_command <= PARTS


def test_a_file_bears_the_name_of_its_command() -> None:
    for name, place in COMMANDS.items():
        assert place.partition(":")[0].partition(".")[2] == name.replace("-", "_")


def test_help_lists_every_command_with_what_it_does() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    for name in COMMANDS:
        line = next(line for line in result.stdout.splitlines() if line.lstrip("│ ").startswith(f"{name} "))
        assert load_command(name).get_short_help_str(20).rstrip(".") in line


@pytest.mark.parametrize("name", [name for name, place in COMMANDS.items() if place.endswith(":app")])
def test_the_help_of_a_group_offers_its_commands_and_no_options_of_the_library(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "completion" not in result.stdout


def test_a_misspelt_command_is_told_its_neighbour() -> None:
    result = CliRunner().invoke(app, ["generat"])
    assert result.exit_code == 2
    assert "Did you mean 'generate'?" in result.output


def test_check_needs_none_of_the_heavy_libraries() -> None:
    assert imported_by("check", "llama-3.2-3b", "--device", "jetson-orin-nano-8gb") == []


def test_plan_needs_none_of_the_heavy_libraries() -> None:
    assert imported_by("plan", "smollm2-1.7b", "--device", "jetson-orin-nano-8gb", "--budget", "2GiB") == []


def test_help_and_commands_for_boards_do_not_import_torch() -> None:
    assert not {"torch", "transformers"} & set(imported_by("--help"))
    assert not {"torch", "transformers"} & set(imported_by("status", "--help"))
