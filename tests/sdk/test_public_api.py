"""The public interface: its names are stable, typed, shown, and cost nothing before they are used."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

import edgewright as ew

NAMES = Path(__file__).with_name("public_api.txt")
HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "grpc",
    "google.protobuf",
    "cryptography",
    "pydantic",
    "rich",
    "asyncio",
)
ERRORS = {
    "EdgewrightError", "InputError", "RefusedError", "BusyError", "OutsideError", "LinkError", "NotCommittedError",
}  # fmt: skip
OF_THE_BUILDER = ("torch", "transformers", "numpy", "onnx", "jinja2", "optuna")
# Classes that do things, and so are no results.
ACTORS = {"Board", "AsyncBoard", "Fleet", "Credentials", "Generation", "AsyncGeneration"}


def public() -> dict[str, Any]:
    return {name: getattr(ew, name) for name in ew.__all__}


def test_the_names_are_those_that_were_published() -> None:
    """A name that goes breaks somebody's program: take it out of the file only with a new major version."""
    assert sorted(ew.__all__) == NAMES.read_text(encoding="utf-8").split()


def test_every_name_is_there_and_known_to_dir_and_to_type_checkers() -> None:
    assert set(ew.__all__) <= set(dir(ew))
    tree = ast.parse(inspect.getsource(ew))
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name for node in ast.walk(checking) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen | {"__version__"} == set(ew.__all__)
    assert all(value is not None for value in public().values())


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgewright' has no attribute 'Bord'"):
        _ = ew.Bord  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, json; before = set(sys.modules); import edgewright;"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules and name not in before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("use", ["Board", "check", "Fleet", "open_artifact"])
def test_what_a_plain_install_lacks_is_not_imported_for_boards(use: str) -> None:
    code = (
        f"import sys, edgewright as ew; ew.{use};"
        f"print([name for name in {OF_THE_BUILDER!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(set(ew.__all__) - {"__version__"}))
def test_every_name_says_what_it_is(name: str) -> None:
    value = getattr(ew, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        hints = get_type_hints(value, localns=public())
        assert set(hints) == {*inspect.signature(value).parameters, "return"}


@pytest.mark.parametrize("name", sorted(set(ew.__all__) - {"__version__"} - ERRORS - ACTORS))
def test_results_are_frozen(name: str) -> None:
    kind = getattr(ew, name)
    if inspect.isfunction(kind):
        return
    if issubclass(kind, BaseModel):
        assert kind.model_config.get("frozen")
    else:
        assert is_dataclass(kind)
        assert vars(kind)["__dataclass_params__"].frozen


SHOWN = (
    "BenchReport", "BoardCalibrated", "BoardReleases", "BoardStatus", "Comparison", "Completion", "DeploymentVerdict",
    "EnergyReadings", "Evaluation", "Fit", "FitMatrix", "GarbageCollection", "KnownModels", "PlanChoice", "PushResult",
    "RolloutReport", "RunFolder", "ScrubResult", "TelemetrySnapshot", "TrustStatement", "TrustUpdate",
)  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_what_calls_return_prints_itself_and_draws_itself_in_a_notebook(name: str) -> None:
    kind = getattr(ew, name)
    assert kind.__str__ is not object.__str__
    assert callable(kind._repr_html_)


def methods(kind: type) -> dict[str, Any]:
    named = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return {name: value for name, value in named.items() if inspect.isfunction(value)}


def test_a_board_and_an_async_board_have_the_same_methods_with_the_same_parameters() -> None:
    sync, asynchronous = methods(ew.Board), methods(ew.AsyncBoard)
    assert set(sync) == set(asynchronous)
    for name in sync:
        one, other = inspect.signature(sync[name]), inspect.signature(asynchronous[name])
        assert one.parameters == other.parameters, name
    constructors = (inspect.signature(kind.__init__).parameters for kind in (ew.Board, ew.AsyncBoard))
    assert next(constructors) == next(constructors)


def test_an_async_board_is_awaited_where_a_board_answers() -> None:
    for name, method in methods(ew.AsyncBoard).items():
        iterates = inspect.isasyncgenfunction(method) or name == "generate"
        assert iterates or inspect.iscoroutinefunction(method), name
